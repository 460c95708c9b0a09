"""Where a simulated round's time goes, and the physical limit: `python benchmarks/simulation_profile.py [W1 W2 ...]`.

A workload of benchmarks/workloads.py runs as `fl simulate` runs it, with clocks around its parts. Milliseconds a round,
medians over the warm rounds:

- train: the compiled programs, of it compute (inside TensorFlow) and dispatch (turning plans into tensors and back);
- answer: what the engine does around them: reading messages, taking the mean, replying;
- evaluate: the server's, on the whole test set;
- rest: the server's round loop: sampling, making messages, aggregating, events;
- beside: what other threads do meanwhile, each in its own time: prepare (the next cohort), commit (the round before).

The limit of compute: the multiplications and additions of the local steps, counted layer by layer, over what this
machine makes of a large float32 product on as many cores; and the bytes that must move (examples in their own dtype,
weights read and written each step) over its bandwidth in a copy. Writes benchmarks/results/simulation_profile.json.
"""

# ruff: noqa: E402  TensorFlow is imported with its options set before anything else imports it

import json
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median
from threading import get_ident
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from fl_simulation.engine.onednn import TensorFlow

TENSORFLOW = TensorFlow.imported()

import numpy as np

from benchmarks.machine import cores, facts
from benchmarks.workloads import WORKLOADS, Workload
from fl_common.models.frameworks import keras, tf
from fl_common.settings import schema as settings_
from fl_common.settings.schema import Settings
from fl_server.app import serve
from fl_server.rounds.loop import Rounds
from fl_server.store.commits import Commits
from fl_server.store.runs import Run
from fl_simulation import population
from fl_simulation.engine.data.ahead import Ahead, Order
from fl_simulation.engine.engine import BatchedEngine
from fl_simulation.engine.onednn import settled
from fl_simulation.engine.program import Program
from fl_simulation.engine.test_set_evaluation import TestSet
from fl_simulation.engine.ways.compiled_loop import Loop
from fl_simulation.engine.ways.vectorized import Vectorized
from fl_simulation.fleet.fleet_grid import grid_of

RESULTS = Path(__file__).parent / "results" / "simulation_profile.json"
SQUARE = 2048  # of the product that the machine's peak is measured with
COPIED = 1 << 28  # bytes of the copy that its bandwidth is measured with


class Clocks:
    """Seconds by name, a list for each round."""

    def __init__(self) -> None:
        self.rounds: list[dict[str, float]] = []
        self._now: dict[str, float] = defaultdict(float)

    def around(self, kind: type[Any], method: str, name: str) -> None:
        """Add the seconds of a method to `name`. Of a generator: those until it is exhausted."""
        inner: Callable[..., Any] = getattr(kind, method)

        def timed(*arguments: Any, **named: Any) -> Any:
            began = time.perf_counter()
            try:
                return inner(*arguments, **named)
            finally:
                self._now[name] += time.perf_counter() - began

        setattr(kind, method, timed)

    def end(self) -> None:
        """Begin another round."""
        self.rounds.append(dict(self._now))
        self._now.clear()

    def milliseconds(self, name: str, warm: int) -> float:
        """Return the median over the rounds after the warm ones."""
        return 1000 * median(each.get(name, 0.0) for each in self.rounds[warm:])


def profiled(workload: Workload) -> dict[str, Any]:
    """Run a workload and return its breakdown and its limit."""
    clocks = Clocks()
    clocks.around(Ahead, "_ready", "prepare")
    clocks.around(Commits, "_commit", "commit")
    clocks.around(TestSet, "evaluate", "evaluate")
    for way in (Vectorized, Loop):
        clocks.around(way, "train", "train")
    clocks.around(Rounds, "_round", "round")
    answer, once = BatchedEngine.answer, Rounds._round

    def listed(engine: BatchedEngine, messages: Any) -> Any:
        return iter(list(answer(engine, messages)))

    def ended(rounds: Rounds, state: Any) -> Any:
        after = once(rounds, state)
        clocks.end()
        return after

    BatchedEngine.answer, Rounds._round = listed, ended  # type: ignore[method-assign]
    clocks.around(BatchedEngine, "answer", "answer")
    settings = settings_of(workload)
    engine = simulated(settings, workload)
    warm = workload.warm
    took = {name: clocks.milliseconds(name, warm) for name in ("round", "answer", "train", "evaluate")}
    compute = alone(engine, settings, workload)
    flops, moved = work_of(engine, workload)
    peak, bandwidth = machine()
    return {
        "engine": engine.choice.name,
        "round_ms": round(took["round"], 2),
        "parts_ms": {
            "compute": round(compute, 2),
            "dispatch": round(took["train"] - compute, 2),
            "answer": round(took["answer"] - took["train"], 2),
            "evaluate": round(took["evaluate"], 2),
            "rest": round(took["round"] - took["answer"] - took["evaluate"], 2),
        },
        "beside_ms": {name: round(clocks.milliseconds(name, warm), 2) for name in ("prepare", "commit")},
        "limit": {
            "gflop_a_round": round(flops / 1e9, 4),
            "peak_gflop_a_second": round(peak / 1e9, 1),
            "ms_by_flops": round(1000 * flops / peak, 2),
            "mb_a_round": round(moved / 1e6, 1),
            "gb_a_second": round(bandwidth / 1e9, 1),
            "ms_by_bytes": round(1000 * moved / bandwidth, 2),
            "compute_is_times_the_larger": round(compute / (1000 * max(flops / peak, moved / bandwidth)), 1),
        },
        "updates_a_second": round(1000 * workload.cohort / (took["round"] - took["evaluate"]), 1),
    }


def settings_of(workload: Workload) -> Settings:
    """Return the settings that `fl simulate` has for it."""
    config = {**population.defaults(workload.clients), **workload.settings(), "tensorboard": False, "plot": False}
    return population.fitting(settings_.parse(config, source="the workload"), workload.clients)


def simulated(settings: Settings, workload: Workload) -> BatchedEngine:
    """Run it as `fl simulate` does, and return its engine."""
    TENSORFLOW.share_cores(settings)
    engine = BatchedEngine(settings, lambda event: settled())
    engine.pool(settings.partitions)
    with tempfile.TemporaryDirectory() as folder:
        directory = Path(folder) / "run"
        run = Run.create(directory, settings.model_copy(update={"out": str(directory)}))
        grid = grid_of(settings, workload.clients, engine, engine.sizes)
        serve(grid, settings, run, observer=Silent(), evaluate=engine.test())
    return engine


class Silent:
    """An observer that shows nothing."""

    def on_event(self, event: Any) -> None:
        """Nothing."""

    def close(self) -> None:
        """Nothing."""


def alone(engine: BatchedEngine, settings: Settings, workload: Workload) -> float:
    """Return the milliseconds that a cohort's programs take, its tensors being ready: the slowest worker's sum."""
    programs: dict[int, float] = defaultdict(float)
    call = Program.__call__

    def timed(program: Program, *arguments: Any, **named: Any) -> Any:
        flat = zip(tf.nest.flatten(arguments), program._dtypes, strict=True)
        ready = [each if isinstance(each, tf.Tensor) else tf.constant(each, dtype) for each, dtype in flat]
        tensors = tf.nest.pack_sequence_as(arguments, ready)
        began = time.perf_counter()
        try:
            return call(program, *tensors, **named)
        finally:
            programs[get_ident()] += time.perf_counter() - began

    Program.__call__ = timed  # type: ignore[method-assign]
    found = []
    weights = [tf.convert_to_tensor(each.numpy()) for each in engine.trainer.model.weights]
    for number in range(1, 12):
        clients = tuple(engine._forecast.cohort(number, workload.clients))
        ready = engine._ahead._ready(Order(number, clients, clients, settings.partitions))
        programs.clear()
        engine.choice.train(weights, ready.cohort, ready.data, mu=0.0, mean=True)
        found.append(1000 * max(programs.values()))
    Program.__call__ = call  # type: ignore[method-assign]
    return float(median(found[1:]))


def work_of(engine: BatchedEngine, workload: Workload) -> tuple[float, float]:
    """Return the floating-point operations and the bytes of a round's local training, at the least."""
    clients = engine._forecast.cohort(1, workload.clients)
    counts = np.array(engine.pool(workload.clients).counts(list(clients), 0))
    examples, steps = workload.epochs * counts.sum(), workload.epochs * (-(-counts // workload.batch)).sum()
    model = engine.trainer.model
    size = sum(each.numpy().nbytes for each in model.trainable_variables)
    data = engine.pool(workload.clients).part([0], 0)[0]
    example = sum(each.dtype.size * int(np.prod(each.shape[1:])) for each in tf.nest.flatten(data))
    return float(examples * flops_of(model)), float(examples * example + steps * 3 * size)


def flops_of(model: keras.Model) -> float:
    """Return the operations of one example's forward and backward pass through Dense and Conv2D layers."""
    total, first = 0.0, True
    for layer in model._flatten_layers():
        if isinstance(layer, keras.layers.Dense | keras.layers.Conv2D):
            places = int(np.prod(layer.output.shape[1:-1]))
            forward = 2.0 * layer.kernel.numpy().size * places
            total += forward * (2 if first else 3)  # nobody asks for the gradient of the pictures
            first = False
    return total


def machine() -> tuple[float, float]:
    """Return this machine's operations a second in a large product, and bytes a second in a copy, on all cores."""
    matrix = tf.random.normal((SQUARE, SQUARE))
    source = [np.ones(COPIED // 4, np.float32) for _ in range(cores())]
    goal = [np.empty_like(each) for each in source]
    threads = max(1, cores() // (tf.config.threading.get_intra_op_parallelism_threads() or cores()))

    def best(work: Callable[[int], Any], of: int) -> float:
        took = []
        with ThreadPoolExecutor(of) as pool:
            for _ in range(5):
                began = time.perf_counter()
                list(pool.map(work, range(of)))
                took.append(time.perf_counter() - began)
        return min(took[1:])

    product = best(lambda which: tf.linalg.matmul(matrix, matrix).numpy(), threads)
    copy = best(lambda which: np.copyto(goal[which], source[which]), cores())
    return threads * 2.0 * SQUARE**3 / product, cores() * 2.0 * COPIED / copy


def main() -> None:
    """Profile the workloads named, one a process: TensorFlow's threads are set once."""
    names = sys.argv[1:] or ["W1", "W2", "W4"]
    if len(names) > 1:
        for name in names:
            subprocess.run([sys.executable, __file__, name], check=True)
        return
    results = json.loads(RESULTS.read_text())["results"] if RESULTS.exists() else {}
    results[names[0]] = profiled(WORKLOADS[names[0]])
    print(names[0], json.dumps(results[names[0]], indent=1))
    RESULTS.write_text(json.dumps({**facts(), "results": results}, indent=2) + "\n")


if __name__ == "__main__":
    main()
