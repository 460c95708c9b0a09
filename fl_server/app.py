"""The ServerApp: settings -> task, strategy and run -> rounds -> the trained model.

Flower calls it, over its gRPC grid (deployed), its Ray grid, or ours in one process.
"""

import importlib.util
import os
import shutil
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import Strategy

import strategies
from fl_common import settings as settings_
from fl_common.arrays import Arrays, nbytes
from fl_common.errors import ParterreError, StoreError, TaskError
from fl_common.evaluation import Evaluator
from fl_common.lean import keras
from fl_common.settings import Settings
from fl_common.task import BUNDLED, Task, build, resolve
from fl_common.weights import assign, non_trainable_names, weights_of
from fl_server.clock import clock_of
from fl_server.disk import plainly
from fl_server.events import stamp
from fl_server.observers import Observer
from fl_server.observers.plots import draw
from fl_server.observers.standard_output import StandardOutput
from fl_server.observers.tensorboard import TensorBoard
from fl_server.patience import Patience
from fl_server.pulling import SUPERLINK_ERRORS
from fl_server.rounds import Evaluate, Observe, Rounds
from fl_server.runs import SETTINGS, Run, new_name
from fl_server.state import State, restore_strategy
from fl_server.whereabouts import Whereabouts
from strategies.fedavg import FedAvg

MODEL = "model.keras"
PLOT = "plot.png"
STORE_VARIABLE = "FL_STORE"
ENDING_SECONDS = 30.0  # what an earlier ServerApp of the same run may take to let go of it

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Run one federation to its end. The run config holds the settings."""
    settings = settings_.parse(context.run_config, source="the run config")
    if not getattr(grid, "simulated", False):
        settings.check_deployable()
    serve(grid, settings, continued(context.run_id) or open_run(settings, context.run_id))


def continued(run_id: int) -> Run | None:
    """Return the run that an earlier ServerApp of the same Flower run began, on a server of ours; None where none did.

    That one may still be ending: the lock is waited for.
    """
    whereabouts = Whereabouts.here()
    directory = whereabouts.directory(run_id) if whereabouts is not None else None
    if directory is None or not (directory / SETTINGS).is_file():
        return None
    run = Run.open(directory)
    run.lock_seconds = ENDING_SECONDS
    return run


def open_run(settings: Settings, run_id: int | None = None) -> Run:
    """Return the run to write: the one in `out` where it is to be resumed, a new one otherwise."""
    if settings.resume:
        return _noted(run_id, Path(settings.out), Run.open, resume=True)
    chosen = settings.store != Settings.model_fields["store"].default
    store = Path(settings.store if chosen else os.environ.get(STORE_VARIABLE, settings.store))
    directory = Path(settings.out) if settings.out else store / new_name(settings)
    kept = settings.model_copy(update={"out": str(directory), "task": _kept(settings, directory)})
    run = _noted(run_id, directory, lambda path: Run.create(path, kept))
    if settings.task.startswith(f"{BUNDLED}."):
        with plainly(f"keep the task in {directory}"):
            shutil.copyfile(_source(settings.task), _kept(settings, directory))
    return run


def _noted(run_id: int | None, directory: Path, begin: Callable[[Path], Run], *, resume: bool = False) -> Run:
    """Return the run that `begin` opens or creates. A server of ours is told first: no crash can part the two."""
    whereabouts = Whereabouts.here()
    if whereabouts is not None and run_id is not None and (resume or not (directory / SETTINGS).is_file()):
        whereabouts.note(run_id, directory)
    return begin(directory)


def _kept(settings: Settings, directory: Path) -> str:
    """Return the task by which the run is found again: a bundle is gone after the run, so its task file is kept."""
    name = settings.task.removeprefix(f"{BUNDLED}.")
    return str(directory.resolve() / f"{name}.py") if name != settings.task else settings.task


def _source(task: str) -> str:
    spec = importlib.util.find_spec(task)
    if spec is None or spec.origin is None:
        raise TaskError(f"the bundle of this run has no task {task}. Submit it again with `fl run --task FILE`.")
    return spec.origin


def serve(
    grid: Grid,
    settings: Settings,
    run: Run,
    *,
    observer: Observer | None = None,
    evaluate: Evaluate | None = None,
) -> None:
    """Run rounds until the settings say stop, and leave model, plot and history in the run's directory.

    `observer` is shown every event; by default they go to standard output as lines of JSON. Whatever goes wrong is
    written into the run as a "failed" event, and raised again; only what is wrong with the server around it is no word
    about the run: a supervisor starts it again.
    """
    with run.lock():
        observers = _observers(settings, run, observer)
        observe = _observing(observers)
        run.patience = Patience(settings.disk_wait_seconds, lambda event: observe(stamp(event)))
        for event in run.reconcile():
            observe(event)
        try:
            _run(grid, settings, run, observe, evaluate)
        except SUPERLINK_ERRORS:
            raise
        except Exception as error:
            code = error.exit_code if isinstance(error, ParterreError) else 1
            text = str(error) if isinstance(error, ParterreError) else f"{type(error).__name__}: {error}"
            run.patience = Patience()
            with suppress(StoreError):  # a full disk may be what went wrong; the error itself is raised below
                picture(settings, run)
            observe(run.append({"event": "failed", "error": text, "exit_code": code}))
            raise
        except (SystemExit, KeyboardInterrupt):  # `flwr stop`, or a signal: the run can be resumed
            observe(run.append({"event": "stopped"}))
            raise
        finally:
            for observer in observers:
                observer.close()


def _run(grid: Grid, settings: Settings, run: Run, observe: Observe, evaluate: Evaluate | None) -> None:
    started = time.perf_counter()
    task = resolve(settings)
    model = build(task, settings.seed)
    strategy = _strategy(settings, model)
    state, resumed_from = _state(run, strategy, model)
    observe(run.append(_started(settings, run, state.arrays, resumed_from)))
    evaluate = evaluate or _evaluation(task, model)
    rounds = Rounds(grid, strategy, settings, run, evaluate=evaluate, observe=observe)
    state, reason = rounds.run(state)
    path = run.patiently(lambda: save(model, state.arrays, run.directory / MODEL))
    observe(
        run.append(
            {
                "event": "finished",
                "rounds": state.round,
                "accuracy": state.result.get("accuracy"),
                "loss": state.result.get("loss"),
                "seconds": round(time.perf_counter() - started, 3),
                "run_dir": str(run.directory),
                "model": str(path),
                "plot": picture(settings, run),
                "stopped": reason,
                **({"fleet_seconds": round(state.clock, 3)} if clock_of(grid).simulated else {}),
            }
        )
    )


def picture(settings: Settings, run: Run) -> str | None:
    """Draw the run so far, where it is wanted and there is a round to show; return the picture's path."""
    if not settings.plot or not run.rounds():
        return None
    path = run.directory / PLOT
    draw(run.events(), path)
    return str(path)


def save(model: keras.Model, arrays: Arrays, path: Path) -> Path:
    """Save the model with these weights, whole or not at all, and return the path."""
    assign(model, arrays)
    temporary = path.with_name(f".{path.name}")
    with plainly(f"save {path}"):
        model.save(temporary.with_suffix(".keras"))
        temporary.with_suffix(".keras").replace(path)
    return path


def _strategy(settings: Settings, model: keras.Model) -> Strategy:
    strategy = strategies.make(settings)
    if isinstance(strategy, FedAvg):
        strategy.non_trainable = non_trainable_names(model)
    return strategy


def _state(run: Run, strategy: Strategy, model: keras.Model) -> tuple[State, int | None]:
    checkpoint = run.latest()
    if checkpoint is None:
        return State(weights_of(model)), None
    restore_strategy(strategy, checkpoint.strategy)
    return State.of(checkpoint), checkpoint.round


def _started(settings: Settings, run: Run, arrays: Arrays, resumed_from: int | None) -> dict[str, Any]:
    return {
        "event": "started",
        "run": run.name,
        "run_dir": str(run.directory),
        "task": settings.task.removeprefix(f"{BUNDLED}."),
        "strategy": settings.strategy,
        "rounds": settings.rounds,
        "seed": settings.seed,
        "parameters": sum(array.size for array in arrays.values()),
        "bytes": nbytes(arrays.values()),
        "resumed_from": resumed_from,
    }


def _evaluation(task: Task, model: keras.Model) -> Evaluate | None:
    """Return the evaluation on the task's own test set; None where it has none."""
    if task.load_test is None:
        return None
    examples = task.load_test()
    evaluator = Evaluator(model)
    return lambda arrays: evaluator.evaluate(arrays, examples)


def _observers(settings: Settings, run: Run, observer: Observer | None) -> list[Observer]:
    chosen: list[Observer] = [observer or StandardOutput()]
    if settings.tensorboard:
        chosen.append(TensorBoard(run.directory / "tensorboard"))
    return chosen


def _observing(observers: list[Observer]) -> Callable[[Mapping[str, Any]], None]:
    def observe(event: Mapping[str, Any]) -> None:
        for observer in observers:
            observer.on_event(event)

    return observe
