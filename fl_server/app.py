"""The ServerApp: settings -> task, strategy and run -> rounds -> the trained model.

Flower calls it, over its gRPC grid (deployed), its Ray grid, or ours in one process.
"""

import os
import shutil
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import redirect_stdout
from functools import partial
from pathlib import Path
from typing import Any

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import Strategy

import strategies
from fl_common.errors import ParterreError
from fl_common.messages.arrays import Arrays, nbytes
from fl_common.models.evaluation import Evaluator
from fl_common.models.frameworks import keras
from fl_common.models.weights import non_trainable_names
from fl_common.settings import schema as settings_
from fl_common.settings.schema import Settings
from fl_common.tasks.task import Task, build, checked_test, resolve
from fl_common.tasks.user_modules import BUNDLED, path_of, short_name
from fl_server.models import keras_file
from fl_server.models.initial_model import initial
from fl_server.observers import Observer
from fl_server.observers.guarded import Guarded
from fl_server.observers.plots import draw
from fl_server.observers.standard_output import StandardOutput
from fl_server.observers.tensorboard import TensorBoard
from fl_server.rounds import report, stopping
from fl_server.rounds.clock import clock_of
from fl_server.rounds.loop import Evaluate, Observe, Rounds
from fl_server.rounds.state import State, restore_strategy
from fl_server.store.disk.disk_wait import Patience
from fl_server.store.disk.whole_writes import plainly
from fl_server.store.log.events_log import stamp
from fl_server.store.run_directories import RunDirectories
from fl_server.store.run_files import TASK
from fl_server.store.runs import Run, holds, new_name
from fl_server.store.seals import trust
from fl_server.superlink.grid.pulling import SUPERLINK_ERRORS
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
    if settings.resume and settings.name and not settings.out:
        settings = of_named(settings, grid.run.override_config)
    if not getattr(grid, "simulated", False):
        settings.check_deployable()
    events = StandardOutput()
    simulated = bool(getattr(grid, "simulated", False))
    with redirect_stdout(sys.stderr):
        run = continued(context.run_id) or open_run(settings, context.run_id, simulated=simulated)
        keep_task(settings, run)  # a fall may have come between a new run and the last file of its task
        serve(grid, settings, run, observer=events)


def continued(run_id: int) -> Run | None:
    """Return the run that an earlier ServerApp of the same Flower run began, on a server of ours; None where none did.

    That one may still be ending: the lock is waited for.
    """
    run_directories = RunDirectories.here()
    directory = run_directories.directory(run_id) if run_directories is not None else None
    if directory is None or not holds(directory):
        return None
    run = Run.open(directory)
    run.lock_seconds = ENDING_SECONDS
    return run


def open_run(settings: Settings, run_id: int | None = None, *, simulated: bool = False) -> Run:
    """Return the run to write: the one in `out` where it is to be resumed, a new one otherwise."""
    if settings.resume:
        by = f"say so where its server is: fl trust {settings.out}"
        trust.check(Run.open(Path(settings.out)), trusted=False, doing="going on with it", by=by)
        return _noted(run_id, Path(settings.out), Run.open, resume=True)
    directory = Path(settings.out) if settings.out else _store(settings) / new_name(settings)
    own = {"task": _kept(settings.task, directory), "strategy": _kept(settings.strategy, directory)}
    kept = settings.model_copy(update={"out": str(directory), **own})
    patience = Patience(settings.disk_wait_seconds)
    begin = partial(Run.create, settings=kept, simulated=simulated)
    run, _ = patience.wait(lambda: _noted(run_id, directory, begin))
    keep_task(settings, run)
    return run


def keep_task(settings: Settings, run: Run) -> None:
    """Keep the files of a task or strategy that travelled with the run's app in the run, where they are not yet."""
    names = [name for name in (settings.task, settings.strategy.rpartition(":")[0]) if name.startswith(f"{BUNDLED}/")]
    if not names or run.files.has_task:
        return
    patience = Patience(settings.disk_wait_seconds)
    for name in names:
        patience.wait(partial(_keep, _bundled(name), run.directory / TASK))
    patience.wait(run.files.keep_task)


def _keep(folder: Path, kept: Path) -> None:
    with plainly(f"keep the task in {kept}"):
        for path in (each for each in folder.rglob("*") if each.is_file() and each.parent.name != "__pycache__"):
            place = kept / path.relative_to(folder)
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, place)


def of_named(settings: Settings, changes: Mapping[str, Any]) -> Settings:
    """Return the settings with which a run of the store goes on: its own, with `changes`, which name it."""
    directory = _store(settings) / settings.name
    return settings_.parse({**Run.open(directory).settings.model_dump(), **changes, "out": str(directory)})


def _store(settings: Settings) -> Path:
    chosen = settings.store != Settings.model_fields["store"].default
    return Path(settings.store if chosen else os.environ.get(STORE_VARIABLE, settings.store))


def _noted(run_id: int | None, directory: Path, begin: Callable[[Path], Run], *, resume: bool = False) -> Run:
    """Return the run that `begin` opens or creates. A server of ours is told first: no crash can part the two."""
    run_directories = RunDirectories.here()
    if run_directories is not None and run_id is not None and (resume or not holds(directory)):
        run_directories.note(run_id, directory)
    return begin(directory)


def _kept(own: str, directory: Path) -> str:
    """Return the task or strategy by which the run is found again: a bundle is gone then, so its files are kept."""
    name = own.removeprefix(f"{BUNDLED}/")
    return str(directory.resolve() / TASK / name) if name != own else own


def _bundled(task: str) -> Path:
    """Return the folder of this app bundle that has the task's files."""
    return path_of(task).parents[task.count("/") - 1]


def serve(
    grid: Grid,
    settings: Settings,
    run: Run,
    *,
    observer: Observer | None = None,
    evaluate: Evaluate | None = None,
    halt: Callable[[], object] = lambda: None,
) -> None:
    """Run rounds until the settings say stop, and leave model, plot and history in the run's directory.

    `observer` is shown every event; by default they go to standard output as lines of JSON. halt: is called before each
    round, and may raise to stop the run there. Whatever goes wrong is
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
            _run(grid, settings, run, observe, evaluate, halt)
        except SUPERLINK_ERRORS:
            raise
        except Exception as error:
            code = error.exit_code if isinstance(error, ParterreError) else 1
            text = str(error) if isinstance(error, ParterreError) else f"{type(error).__name__}: {error}"
            run.patience = Patience()
            picture(settings, run)
            observe(run.append({"event": "failed", "error": text, "exit_code": code}))
            raise
        except BaseException:  # `flwr stop`, or a signal: the run can be resumed
            observe(run.append({"event": "stopped"}))
            raise
        finally:
            for observer in observers:
                observer.close()


def _run(
    grid: Grid,
    settings: Settings,
    run: Run,
    observe: Observe,
    evaluate: Evaluate | None,
    halt: Callable[[], object],
) -> None:
    started = time.perf_counter()
    task = resolve(settings)
    model = build(task, settings.seed)
    stopping.check(settings, model)
    strategy = _strategy(settings, model)
    state, resumed_from = _state(run, settings, strategy, model)
    observe(run.append(_started(settings, run, state.arrays, resumed_from)))
    evaluate = evaluate or _evaluation(task, model)
    if reason := keras_file.refusal(model):
        observe(run.append({"event": "warning", "text": f"{MODEL} will not be written, only checkpoints: {reason}"}))
    rounds = Rounds(grid, strategy, settings, run, evaluate=evaluate, observe=observe, halt=halt)
    first = [state]
    del state  # else the first model stays in memory as long as the run
    state, reason = rounds.run(first.pop())
    saved = run.patiently(lambda: keras_file.written(model, state.arrays, run.directory / MODEL))
    run.patiently(lambda: run.files.keep_sums(MODEL))
    ending = run.append(
        {
            "event": "finished",
            "rounds": state.round,
            "accuracy": state.result.get("accuracy"),
            "loss": state.result.get("loss"),
            "seconds": round(time.perf_counter() - started, 3),
            "run_dir": str(run.directory),
            **saved,
            **picture(settings, run),
            "stopped": reason,
            "gaps": report.gaps(run.rounds()),
            **rounds.took_part(),
            **({"fleet_seconds": round(state.clock, 3)} if clock_of(grid).simulated else {}),
        }
    )
    run.patiently(run.seal_log)
    observe(ending)


def picture(settings: Settings, run: Run) -> dict[str, str | None]:
    """Draw the run so far, where it is wanted and there is a round to show.

    Return what an event says of it: "plot", its path or None, and with "plot_error" why it could not be drawn: a run
    does not end for want of its picture.
    """
    if not settings.plot or not run.rounds():
        return {"plot": None}
    path = run.directory / PLOT
    try:
        draw(run.events(), path)
    except Exception as error:  # noqa: BLE001  Matplotlib wants a cache, fonts and a disk
        return {"plot": None, "plot_error": str(error) if isinstance(error, ParterreError) else repr(error)}
    return {"plot": str(path)}


def _strategy(settings: Settings, model: keras.Model) -> Strategy:
    strategy = strategies.make(settings)
    if isinstance(strategy, FedAvg):
        strategy.non_trainable = non_trainable_names(model)
    return strategy


def _state(run: Run, settings: Settings, strategy: Strategy, model: keras.Model) -> tuple[State, int | None]:
    checkpoint = run.latest()
    if checkpoint is None:
        return State(initial(settings, model)), None
    restore_strategy(strategy, checkpoint.strategy)
    return State.of(checkpoint), checkpoint.round


def _started(settings: Settings, run: Run, arrays: Arrays, resumed_from: int | None) -> dict[str, Any]:
    return {
        "event": "started",
        "run": run.name,
        "run_dir": str(run.directory),
        "task": short_name(settings.task),
        "strategy": settings.strategy.rpartition("/")[2],
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
    examples = checked_test(task, model)
    evaluator = Evaluator(model)
    return lambda arrays: evaluator.evaluate(arrays, examples)


def _observers(settings: Settings, run: Run, observer: Observer | None) -> list[Observer]:
    chosen: list[Observer] = [observer or StandardOutput()]
    if settings.tensorboard:
        chosen.append(TensorBoard(run.directory / "tensorboard"))
    return [Guarded(each) for each in chosen]


def _observing(observers: list[Observer]) -> Callable[[Mapping[str, Any]], None]:
    def observe(event: Mapping[str, Any]) -> None:
        for observer in observers:
            observer.on_event(event)

    return observe
