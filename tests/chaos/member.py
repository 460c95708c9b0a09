"""A client of the chaos tests: the real one, that notes its updates, and on demand lies or has its clock jump."""

import datetime
import json
import logging
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict

from fl_client.process import ClientOptions, serve
from fl_common.messages import packed_arrays
from tests.chaos.ledger import Ledger

log = logging.getLogger(__name__)

ORDERS = "PARTERRE_CHAOS_ORDERS"  # the environment variable that names this client's file of orders
GARBAGE = np.random.default_rng(0).bytes(400)

App = Callable[[Message, Context], Message]


def member(options: ClientOptions) -> None:
    """Serve as `fl client` does."""
    import fl_client.app

    clock = Clock()
    orders = Orders(Path(os.environ[ORDERS]), clock)
    make_app = fl_client.app.make_app
    fl_client.app.make_app = lambda workplace: _told(make_app(workplace), orders)  # type: ignore[assignment]
    serve(options)


class Clock:
    """This process's wall clock, as Python code sees it: it can be set off by any number of seconds."""

    def __init__(self) -> None:
        import flwr.supercore.date

        self.offset = 0.0
        self.true = time.time
        time.time = lambda: self.true() + self.offset
        clock = self

        class Shifted(datetime.datetime):
            @classmethod
            def now(cls, tz: datetime.tzinfo | None = None) -> datetime.datetime:  # type: ignore[override]
                return datetime.datetime.now(tz) + datetime.timedelta(seconds=clock.offset)

        flwr.supercore.date.datetime = SimpleNamespace(datetime=Shifted, UTC=datetime.UTC)  # dates Flower's messages


class Orders:
    """Files that the test writes: PATH.clock, seconds to set the clock off by; PATH.hostile, a lie to tell."""

    def __init__(self, path: Path, clock: Clock) -> None:
        self._path = path
        self._clock = clock
        threading.Thread(target=self._set_clock, daemon=True).start()

    def lie(self) -> str:
        """Return the kind of lie to tell now, or ""."""
        path = self._path.with_suffix(".hostile")
        try:
            return str(json.loads(path.read_text()))
        except FileNotFoundError:
            return ""

    def _set_clock(self) -> None:
        path = self._path.with_suffix(".clock")
        while True:
            if path.exists() and (offset := json.loads(path.read_text())) != self._clock.offset:
                self._clock.offset = offset
                log.info("the clock is off by %g s", offset)
            time.sleep(0.05)

    def note_clock(self, reply: Message) -> None:
        """Say that a reply was dated by a clock that is off: the test looks for it."""
        if abs(reply.metadata.created_at - self._clock.true()) > 1000:
            log.info("dated by a wrong clock")


def _told(app: App, orders: Orders) -> App:
    def told(message: Message, context: Context) -> Message:
        reply = app(message, context)
        orders.note_clock(reply)
        if message.metadata.message_type == "train":
            if kind := orders.lie():
                Ledger.here().lied(message.metadata.dst_node_id, _round(message), kind)
                return Message(LIES[kind](packed_arrays.unpack(reply.content)), reply_to=message)
            _note(message, reply)
        return reply

    return told


def _round(message: Message) -> int:
    return int(packed_arrays.unpack(message.content)["config"]["server-round"])


def _note(message: Message, reply: Message) -> None:
    content = packed_arrays.unpack(reply.content)
    base = {name: array.numpy() for name, array in packed_arrays.unpack(message.content)["arrays"].items()}
    update = {name: array.numpy() for name, array in content["arrays"].items()}
    Ledger.here().sent(base, update, int(content["metrics"]["num-examples"]))


def _nan(content: RecordDict) -> RecordDict:
    arrays = {name: Array(np.full_like(array.numpy(), np.nan)) for name, array in content["arrays"].items()}
    return RecordDict({"arrays": ArrayRecord(arrays), "metrics": content["metrics"]})


def _shapes(content: RecordDict) -> RecordDict:
    arrays = {name: Array(np.zeros((3, 5), np.float32)) for name in content["arrays"]}
    return RecordDict({"arrays": ArrayRecord(arrays), "metrics": content["metrics"]})


def _garbage(content: RecordDict) -> RecordDict:
    return RecordDict(
        {f"arrays{packed_arrays.SUFFIX}": ConfigRecord({packed_arrays.FIELD: GARBAGE}), "metrics": content["metrics"]}
    )


def _huge(content: RecordDict) -> RecordDict:
    metrics = MetricRecord({**content["metrics"], "num-examples": 10**12})
    return RecordDict({"arrays": content["arrays"], "metrics": metrics})


LIES = {
    "NaN": _nan, "wrong shapes": _shapes, "garbage bytes": _garbage, "huge examples": _huge,
}  # fmt: skip
REASONS = {"NaN": "not-finite", "wrong shapes": "shape", "garbage bytes": "malformed", "huge examples": "weight"}
