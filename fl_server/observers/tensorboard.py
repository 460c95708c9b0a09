"""TensorBoard logs of a run, by TensorFlow's own writer: `tensorboard --logdir RUN/tensorboard`."""

import logging
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from fl_common.models.frameworks import tf

log = logging.getLogger(__name__)

SCALARS = {
    "loss": "federated/loss",
    "accuracy": "federated/accuracy",
    "train_loss": "train/loss",
    "train_accuracy": "train/accuracy",
    "seconds": "round/seconds",
    "replies": "round/replies",
    "rejected": "round/rejected",
    "bytes_up": "bytes/up",
    "bytes_down": "bytes/down",
}
SPREAD = ("min", "q1", "median", "q3", "max")


class TensorBoard:
    """Writes a scalar a round for each number of the "round" event, the phases and the spread included."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._writer: Any = None
        self._given_up = False

    def on_event(self, event: Mapping[str, Any]) -> None:
        """Write a round's scalars and flush, so that TensorBoard follows a run that goes on.

        Where that fails, as on a full disk, it says so and writes no more.
        """
        if event["event"] != "round" or self._given_up:
            return
        try:
            self._write(event)
        except (tf.errors.OpError, OSError) as error:
            self._given_up = True
            log.warning("the logs for TensorBoard end before round %d: %s", event["round"], in_short(error))

    def close(self) -> None:
        """Flush and close the log."""
        with suppress(tf.errors.OpError, OSError):
            if self._writer is not None:
                self._writer.close()

    def _write(self, event: Mapping[str, Any]) -> None:
        self._writer = self._writer or tf.summary.create_file_writer(str(self._directory))
        with self._writer.as_default(step=event["round"]):
            for name, value in scalars(event).items():
                tf.summary.write(name, tf.constant(value, tf.float32), metadata=_metadata())
        self._writer.flush()


def in_short(error: Exception) -> str:
    """Return the first line of an error's text, without TensorFlow's name of the operation."""
    return next(iter(str(error).splitlines()), type(error).__name__).rpartition("}} ")[2]


def scalars(event: Mapping[str, Any]) -> dict[str, float]:
    """Return the numbers of a "round" event by the names that TensorBoard shows."""
    named = {tag: event.get(key) for key, tag in SCALARS.items()}
    named |= {f"seconds/{phase}": value for phase, value in (event.get("phases") or {}).items()}
    named |= {f"fleet/{name}": value for name, value in (event.get("fleet") or {}).items()}
    for measure, values in (event.get("spread") or {}).items():
        named |= {f"clients_{measure}/{name}": value for name, value in zip(SPREAD, values, strict=False)}
    return {tag: float(value) for tag, value in named.items() if value is not None}


def _metadata() -> Any:
    """Return what marks a summary as a scalar. tf.summary.scalar would need the package tensorboard installed."""
    metadata = tf.compat.v1.SummaryMetadata()
    metadata.plugin_data.plugin_name = "scalars"
    metadata.data_class = 1  # DATA_CLASS_SCALAR
    return metadata
