"""How fast and in how much memory the server folds replies: ours beside Flower's FedAvg and the machine's memory.

Real flwr Messages go through the whole of aggregate_train: decode, check, fold, encode. Speed is bytes of replies over
the time spent inside the strategy, by the clock and by the process's CPU time, which other processes disturb less.
`clock` and `cpu`: later rounds of one process, where replies lie ready and ours and Flower's take turns, so memory is
warm. `first_round`: the first round of a process of its own for each, where a generator makes the replies one at a time
(its time is taken off); the peak of the resident set is watched there too. Flower holds all replies, as its loop does.
Run `python benchmarks/aggregation.py [--quick]`; it writes benchmarks/results/aggregation.json.
"""

import argparse
import json
import logging
import multiprocessing
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

os.environ.setdefault("FLWR_TELEMETRY_ENABLED", "0")

import machine
import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Message, MessageType, MetricRecord, RecordDict
from flwr.serverapp.strategy import FedAvg as FlowersFedAvg

from fl_common.messages.arrays import encode
from strategies.fedavg import FedAvg
from strategies.rules.weighted_mean import WeightedMean

RESULT = Path(__file__).parent / "results" / "aggregation.json"
CASES = {"32 replies of 10 MB": (32, 10), "8 replies of 100 MB": (8, 100)}


def model(megabytes: int, seed: int = 0) -> dict[str, np.ndarray]:
    """A model of ten arrays, 1 to 40 % of the bytes each, float32."""
    rng = np.random.default_rng(seed)
    shares = np.array([1, 2, 3, 4, 5, 5, 10, 10, 20, 40]) / 100
    sizes = (shares * megabytes * 250_000).astype(int)
    return {f"layer_{n}/kernel": rng.random(size, dtype=np.float32).reshape(-1, 100) for n, size in enumerate(sizes)}


def reply(arrays: ArrayRecord, node: int) -> Message:
    """What client `node` sends back."""
    request = Message(content=RecordDict(), dst_node_id=node, message_type=MessageType.TRAIN)
    metrics = MetricRecord({"num-examples": 100 + node, "loss": 1.0 / node})
    return Message(RecordDict({"arrays": arrays, "metrics": metrics}), reply_to=request)


def begin(strategy: Any, arrays: ArrayRecord, number: int) -> None:
    """Start a round without a network."""
    strategy.eligible = lambda: range(1, number + 1)
    strategy.configure_train(1, arrays, ConfigRecord(), None)


def timed(strategy: Any, replies: list[Message]) -> tuple[float, float]:
    """Seconds of one aggregate_train: by the clock, and of CPU on all threads."""
    clock, cpu = time.perf_counter(), time.process_time()
    result, _ = strategy.aggregate_train(1, replies)
    seconds = time.perf_counter() - clock, time.process_time() - cpu
    assert result is not None
    return seconds


def speed(number: int, megabytes: int, repeats: int) -> dict[str, Any]:
    """Both, in turns; GB/s of replies."""
    arrays = encode(model(megabytes))
    replies = [reply(encode(model(megabytes, seed=node)), node) for node in range(1, number + 1)]
    gigabytes = sum(len(array.data) for message in replies for array in message.content["arrays"].values()) / 1e9
    mine, theirs = FedAvg(), FlowersFedAvg()  # kept from round to round, as a server does
    begin(mine, arrays, number)
    rounds = [(timed(mine, replies), timed(theirs, replies)) for _ in range(repeats + 1)][1:]
    return {"gigabytes": round(gigabytes, 3)} | {
        kind: {
            "ours_seconds": [round(ours[n], 4) for ours, _ in rounds],
            "flower_seconds": [round(flower[n], 4) for _, flower in rounds],
            "ours_gb_s": machine.median([gigabytes / ours[n] for ours, _ in rounds], 2),
            "flower_gb_s": machine.median([gigabytes / flower[n] for _, flower in rounds], 2),
            "ratio": machine.median([flower[n] / ours[n] for ours, flower in rounds], 2),
        }
        for n, kind in enumerate(("clock", "cpu"))
    }


def first_round_of(who: str, number: int, megabytes: int, sender: Any) -> None:
    """In a process of its own: seconds of the first round, and how far the peak resident set rises above one model."""
    logging.getLogger("flwr").setLevel(logging.ERROR)
    arrays = encode(model(megabytes))
    spent = 0.0

    def replies() -> Iterator[Message]:
        nonlocal spent
        for node in range(1, number + 1):
            start = time.perf_counter()
            message = reply(_fresh(arrays), node)
            spent += time.perf_counter() - start
            yield message
            del message

    strategy: Any = FedAvg() if who == "ours" else FlowersFedAvg()
    if who == "ours":
        begin(strategy, arrays, number)
        WeightedMean({"w": np.empty(1 << 21, np.float32)})  # compiles the kernels, once a process: `kernels` below
    base = _resident()
    _reset_peak()
    start = time.perf_counter()
    strategy.aggregate_train(1, replies() if who == "ours" else list(replies()))
    sender.send((time.perf_counter() - start - spent, (_peak() - base) / 1e6))


def _fresh(arrays: ArrayRecord) -> ArrayRecord:
    # A record with memory of its own, as one that came over the network has.
    copy = ArrayRecord(dict(arrays))
    for array in copy.values():
        array.data = b"".join((array.data[:64], memoryview(array.data)[64:]))
    return copy


def first_round(who: str, number: int, megabytes: int) -> tuple[float, float]:
    """Seconds and megabytes of `first_round_of`."""
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    child = context.Process(target=first_round_of, args=(who, number, megabytes, sender))
    child.start()
    sender.close()
    seconds, grown = receiver.recv()
    child.join()
    return seconds, grown


def _resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def _peak() -> int:
    line = next(each for each in Path("/proc/self/status").read_text().splitlines() if each.startswith("VmHWM"))
    return int(line.split()[1]) * 1024


def _reset_peak() -> None:
    Path("/proc/self/clear_refs").write_text("5")


def kernels() -> dict[str, float]:
    """What numba costs a process, once: seconds and megabytes of import and compilation."""
    code = (
        "import numpy, time; from pathlib import Path\n"
        "rss = lambda: int(Path('/proc/self/status').read_text().split('VmHWM:')[1].split()[0])\n"
        "t, m = time.perf_counter(), rss()\n"
        "import strategies.rules.kernels\n"
        "print(round(time.perf_counter() - t, 2), round((rss() - m) / 1000, 1))"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    seconds, megabytes = map(float, done.stdout.split())
    return {"seconds": seconds, "mb": megabytes}


def bandwidth(threads: int) -> dict[str, float]:
    """GB/s of plain NumPy over 200 MB arrays: copy (2 streams) and a += b (3 streams), bytes read and written."""
    size = 50_000_000
    a, b = np.ones(size, np.float32), np.ones(size, np.float32)
    parts = [slice(n * size // threads, (n + 1) * size // threads) for n in range(threads)]

    def rate(work: Callable[[slice], Any], streams: int) -> float:
        times = []
        with ThreadPoolExecutor(threads) as pool:
            for _ in range(5):
                start = time.perf_counter()
                list(pool.map(work, parts))
                times.append(time.perf_counter() - start)
        return machine.median([streams * a.nbytes / each / 1e9 for each in times], 1)

    return {
        "copy_gb_s": rate(lambda part: np.copyto(a[part], b[part]), 2),
        "add_gb_s": rate(lambda part: np.add(a[part], b[part], out=a[part]), 3),
    }


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="two repeats; writes nothing")
    logging.getLogger("flwr").setLevel(logging.ERROR)
    quick = parser.parse_args().quick
    result = machine.facts() | {
        "memory_bandwidth": {f"{threads} threads": bandwidth(threads) for threads in (1, 2)},
        "kernels": kernels(),
        "cases": {name: case(*CASES[name], repeats=2 if quick else 7) for name in CASES},
        "how": __doc__,
    }
    print(json.dumps(result, indent=2))
    if not quick:
        RESULT.parent.mkdir(exist_ok=True)
        RESULT.write_text(json.dumps(result, indent=2) + "\n")


def case(number: int, megabytes: int, repeats: int) -> dict[str, Any]:
    """Speed and memory of one case; `peak_copies` is the peak in models, the one that is being sent out included."""
    firsts: dict[str, list[tuple[float, float]]] = {"ours": [], "flower": []}
    for _ in range(min(repeats, 3)):
        for who, measured in firsts.items():
            measured.append(first_round(who, number, megabytes))
    rate = {who: [number * megabytes / 1e3 / seconds for seconds, _ in each] for who, each in firsts.items()}
    grown = {who: machine.median([megabytes for _, megabytes in each], 1) for who, each in firsts.items()}
    return speed(number, megabytes, repeats) | {
        "first_round": {
            "ours_gb_s": machine.median(rate["ours"], 2),
            "flower_gb_s": machine.median(rate["flower"], 2),
            "ratio": machine.median([a / b for a, b in zip(rate["ours"], rate["flower"], strict=True)], 2),
        },
        "ours_peak_mb": grown["ours"],
        "flower_peak_mb": grown["flower"],
        "ours_peak_copies": round(grown["ours"] / megabytes + 1, 2),
        "flower_peak_copies": round(grown["flower"] / megabytes + 1, 2),
        "allowed_copies": "3 of the model and 1 reply",
    }


if __name__ == "__main__":
    main()
