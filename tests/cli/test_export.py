"""`fl export`: each format computes what the run's model computes, also where model.keras is missing or of no use."""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from fl_cli import export, runs
from fl_common.errors import ExportError, ParterreError, StoreError, TaskError
from fl_common.models.frameworks import keras, tf
from fl_common.models.weights import weights_of
from fl_common.settings.schema import Settings
from fl_common.tasks.task import build, resolve
from fl_server.store.runs import Checkpoint, Run

pytestmark = pytest.mark.filterwarnings("ignore:.*tf.lite.Interpreter is deprecated")  # only the test runs it

X = np.random.default_rng(0).random((5, 64), np.float32)

CUSTOM = """
from fl_common.models.frameworks import keras
import numpy as np

{decorator}
class Doubled(keras.layers.Layer):
    def call(self, x):
        return 2 * x

def build_model():
    model = keras.Sequential([keras.Input((64,)), Doubled(), keras.layers.BatchNormalization(), keras.layers.Dense(3)])
    model.compile("sgd", "mse")
    return model

def load_partition(partition, partitions):
    x = np.zeros((4, 64), np.float32)
    return (x, np.zeros((4, 3), np.float32)), (x, np.zeros((4, 3), np.float32))
"""


@pytest.fixture
def app() -> typer.Typer:
    app = typer.Typer()
    export.register(app)
    runs.register(app)
    return app


def made(directory: Path, *, save: bool = True, seed: int = 3, **settings: Any) -> tuple[Run, np.ndarray]:
    """A finished run, of a model that was not trained, and what that model computes for X."""
    run = Run.create(directory, Settings(seed=seed, **settings))
    model = build(resolve(run.settings), seed)
    run.commit(Checkpoint(1, weights_of(model)), {"event": "round", "round": 1})
    if save:
        model.save(run.directory / "model.keras")
        run.files.keep_sums("model.keras")
        run.append({"event": "finished", "rounds": 1})
    return run, np.asarray(model(X, training=False))


def custom(tmp_path: Path, decorator: str) -> str:
    path = tmp_path / "my_task.py"
    path.write_text(CUSTOM.format(decorator=decorator))
    return str(path)


def plain(tmp_path: Path) -> str:
    """A task file whose model is of Keras's own layers."""
    path = tmp_path / "my_task.py"
    path.write_text(CUSTOM.format(decorator="").replace("Doubled(), ", ""))
    return str(path)


def exported(app: typer.Typer, run: Run, format_: str, *more: str) -> str:
    arguments = ["export", str(run.directory), "--format", format_, *more]
    result = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


def run_tflite(path: Path, x: np.ndarray) -> np.ndarray:
    interpreter = tf.lite.Interpreter(model_path=str(path))
    (given,), (wanted,) = interpreter.get_input_details(), interpreter.get_output_details()
    interpreter.resize_tensor_input(given["index"], x.shape)
    interpreter.allocate_tensors()
    interpreter.set_tensor(given["index"], x)
    interpreter.invoke()
    return np.array(interpreter.get_tensor(wanted["index"]))


@pytest.mark.parametrize("model", ["mlp", pytest.param("cnn", marks=pytest.mark.slow)])
def test_every_format_computes_what_the_model_computes(app: typer.Typer, tmp_path: Path, model: str) -> None:
    run, expected = made(tmp_path / "run", model=model)
    exported(app, run, "keras", "--out", str(tmp_path / "copy.keras"))
    exported(app, run, "savedmodel", "--out", str(tmp_path / "deep" / "saved"))
    exported(app, run, "tflite", "--out", str(tmp_path / "m.tflite"))
    loaded = keras.saving.load_model(tmp_path / "copy.keras")
    np.testing.assert_array_equal(np.asarray(loaded(X, training=False)), expected)
    served = tf.saved_model.load(str(tmp_path / "deep" / "saved"))
    np.testing.assert_allclose(served.serve(X).numpy(), expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(run_tflite(tmp_path / "m.tflite", X), expected, rtol=1e-4, atol=1e-5)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["copy.keras", "deep", "m.tflite", "run"]


DRAWING = CUSTOM.replace("return 2 * x", "return x + keras.random.normal(keras.ops.shape(x))")


def test_what_draws_in_training_only_does_not_draw_in_an_export(app: typer.Typer, tmp_path: Path) -> None:
    task = tmp_path / "my_task.py"
    task.write_text(DRAWING.format(decorator="").replace("Doubled()", "keras.layers.GaussianNoise(1.0)"))
    run, expected = made(tmp_path / "run", task=str(task))
    exported(app, run, "savedmodel", "--out", str(tmp_path / "saved"))
    loaded = tf.saved_model.load(str(tmp_path / "saved"))
    for _ in range(2):
        np.testing.assert_allclose(loaded.serve(X).numpy(), expected, rtol=1e-5, atol=1e-6)


def test_an_export_that_would_not_answer_as_the_model_fails_and_leaves_what_was_there(
    app: typer.Typer, tmp_path: Path
) -> None:
    task, out = tmp_path / "my_task.py", tmp_path / "out"
    task.write_text(DRAWING.format(decorator=""))
    run, _ = made(tmp_path / "run", task=str(task))
    out.mkdir()
    (out / "m.tflite").write_text("of yesterday")
    for format_, name in (("savedmodel", "saved"), ("tflite", "m.tflite")):
        with pytest.raises(ExportError, match="differently each time") as refused:
            exported(app, run, format_, "--out", str(out / name))
        assert refused.value.exit_code == 1
    assert [entry.name for entry in out.iterdir()] == ["m.tflite"]
    assert (out / "m.tflite").read_text() == "of yesterday"
    exported(app, run, "weights", "--out", str(out / "w.npz"))


def test_a_model_that_learns_its_inputs_from_data_is_exported_on_the_tasks_examples(
    app: typer.Typer, tmp_path: Path
) -> None:
    task = tmp_path / "my_task.py"
    task.write_text(CUSTOM.format(decorator="").replace("keras.Input((64,)), ", ""))
    run, expected = made(tmp_path / "run", save=False, task=str(task))
    exported(app, run, "savedmodel", "--out", str(tmp_path / "saved"))
    loaded = tf.saved_model.load(str(tmp_path / "saved"))
    np.testing.assert_allclose(loaded.serve(X).numpy(), expected, rtol=1e-5, atol=1e-6)


def test_weights_are_written_by_the_names_of_the_variables(app: typer.Typer, tmp_path: Path) -> None:
    run, _ = made(tmp_path / "run")
    assert "weights.npz" in exported(app, run, "weights")
    checkpoint = run.latest()
    assert checkpoint is not None
    with np.load(run.directory / "weights.npz") as stored:
        assert sorted(stored.files) == sorted(checkpoint.arrays)
        for name, array in checkpoint.arrays.items():
            np.testing.assert_array_equal(stored[name], array)


def test_exports_go_into_the_run_and_may_be_repeated(app: typer.Typer, tmp_path: Path) -> None:
    run, _ = made(tmp_path / "run")
    for _ in range(2):
        assert str(run.directory / "savedmodel") in exported(app, run, "savedmodel")
        assert str(run.directory / "model.keras") in exported(app, run, "keras")
    assert (run.directory / "savedmodel" / "saved_model.pb").is_file()


def test_a_run_that_is_not_finished_is_exported_from_its_newest_checkpoint(app: typer.Typer, tmp_path: Path) -> None:
    run, expected = made(tmp_path / "run", save=False)
    exported(app, run, "keras")
    loaded = keras.saving.load_model(run.directory / "model.keras")
    np.testing.assert_array_equal(np.asarray(loaded(X, training=False)), expected)


@pytest.mark.parametrize("decorator", ["@keras.saving.register_keras_serializable('mine')", ""])
def test_a_users_layer_is_exported_registered_or_not(app: typer.Typer, tmp_path: Path, decorator: str) -> None:
    run, expected = made(tmp_path / "run", task=custom(tmp_path, decorator))
    exported(app, run, "tflite", "--out", str(tmp_path / "m.tflite"))
    np.testing.assert_allclose(run_tflite(tmp_path / "m.tflite", X), expected, rtol=1e-4, atol=1e-5)


def test_a_model_of_keras_own_layers_is_exported_without_its_task(app: typer.Typer, tmp_path: Path) -> None:
    run, _ = made(tmp_path / "run", task=plain(tmp_path))
    (tmp_path / "my_task.py").unlink()
    exported(app, run, "savedmodel", "--out", str(tmp_path / "saved"))
    (run.directory / "model.keras").unlink()
    with pytest.raises(TaskError, match=r"my_task\.py"):
        exported(app, run, "tflite")


def test_a_run_without_a_round_has_no_model(app: typer.Typer, tmp_path: Path) -> None:
    run = Run.create(tmp_path / "run", Settings())
    for format_ in export.Format:
        with pytest.raises(StoreError, match="no round was completed"):
            exported(app, run, format_)
    assert sorted(entry.name for entry in run.directory.iterdir()) == [".lock", "seal.json", "settings.toml"]


def test_a_damaged_model_without_a_checkpoint_is_named(app: typer.Typer, tmp_path: Path) -> None:
    run = Run.create(tmp_path / "run", Settings())
    (run.directory / "model.keras").write_bytes(b"no model")
    run.append({"event": "finished", "rounds": 1})
    with pytest.raises(StoreError, match=r"model\.keras is damaged.*no checkpoint"):
        exported(app, run, "tflite")


@pytest.mark.parametrize(
    ("format_", "name"), [("keras", "m.h5"), ("tflite", ""), ("savedmodel", "run"), ("savedmodel", "f")]
)
def test_a_target_that_would_be_wrong_is_refused(app: typer.Typer, tmp_path: Path, format_: str, name: str) -> None:
    run = Run.create(tmp_path / "run", Settings())
    (tmp_path / "f").write_text("precious")
    with pytest.raises(ParterreError, match="expected"):
        exported(app, run, format_, "--out", str(tmp_path / name))
    assert (tmp_path / "f").read_text() == "precious"
    assert (run.directory / "settings.toml").is_file()


def test_the_best_round_is_exported_on_request(app: typer.Typer, tmp_path: Path) -> None:
    run = Run.create(tmp_path / "run", Settings(keep=1))
    for number, loss in ((1, 0.5), (2, 0.1), (3, 0.7)):
        arrays = {
            name: np.full_like(array, number) for name, array in weights_of(build(resolve(run.settings), 0)).items()
        }
        run.commit(Checkpoint(number, arrays), {"event": "round", "round": number, "loss": loss})
    for format_, name in (("weights", "best-weights.npz"), ("keras", "best-model.keras")):
        done = CliRunner().invoke(app, ["export", str(run.directory), "--best", "--format", format_])
        assert done.exit_code == 0, done.output
        assert (run.directory / name).is_file()
    with np.load(run.directory / "best-weights.npz") as stored:
        assert all((stored[key] == 2).all() for key in stored.files)
    best = weights_of(keras.saving.load_model(run.directory / "best-model.keras"))
    assert all((array == 2).all() for array in best.values())


def test_a_run_without_its_metric_has_no_best_round(tmp_path: Path) -> None:
    run, _ = made(tmp_path / "run")
    with pytest.raises(StoreError, match=r"no best round by keep_best='loss'.*without --best"):
        export.Source(run, best=True).checkpoint()


DAMAGES = {
    "emptied": lambda path: path.write_bytes(b""),
    "cut": lambda path: path.write_bytes(path.read_bytes()[:-100]),
    "a changed weight": lambda path: _change_a_weight(path),
    "another model": lambda path: build(resolve(Settings(model="cnn")), 1).save(path),
}


def _change_a_weight(path: Path) -> None:
    model = keras.saving.load_model(path)
    model.set_weights([array + 1 for array in model.get_weights()])
    model.save(path)


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_model_is_never_handed_out_but_made_of_the_checkpoint(
    app: typer.Typer, tmp_path: Path, damage: str
) -> None:
    run, expected = made(tmp_path / "run")
    DAMAGES[damage](run.directory / "model.keras")
    out = tmp_path / "copy.keras"
    result = CliRunner().invoke(app, ["export", str(run.directory), "--out", str(out)], catch_exceptions=False)
    assert "model.keras is damaged" in result.stderr
    assert "the checkpoint of round 1" in result.stderr
    np.testing.assert_array_equal(np.asarray(keras.saving.load_model(out)(X, training=False)), expected)
    exported(app, run, "keras")  # into the run, where it is whole again
    again = CliRunner().invoke(app, ["export", str(run.directory), "--out", str(out)], catch_exceptions=False)
    assert again.stderr == ""
    for entry in (run.directory / "checkpoints").glob("0*"):
        (entry / "manifest.json").write_text("[" * 100_000)
    DAMAGES[damage](run.directory / "model.keras")
    with pytest.raises(StoreError, match=r"model\.keras is damaged.*no checkpoint"):
        exported(app, run, "keras", "--out", str(tmp_path / "none.keras"))


def test_a_model_falls_back_to_the_older_checkpoint(app: typer.Typer, tmp_path: Path) -> None:
    run, _ = made(tmp_path / "run", save=False)
    checkpoint = run.latest()
    assert checkpoint is not None
    run.commit(
        Checkpoint(2, {name: array * 2 for name, array in checkpoint.arrays.items()}), {"event": "round", "round": 2}
    )
    (run.directory / "checkpoints" / "0002" / "manifest.json").write_text("[" * 100_000)
    exported(app, run, "weights")
    with np.load(run.directory / "weights.npz") as stored:
        for name, array in checkpoint.arrays.items():
            np.testing.assert_array_equal(stored[name], array)


def test_a_run_of_somebody_else_runs_none_of_its_code_without_trust(
    app: typer.Typer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, expected = made(tmp_path / "run", task=custom(tmp_path, ""))
    for name in [name for name, each in sys.modules.items() if vars(each).get("__file__") == run.settings.task]:
        monkeypatch.delitem(sys.modules, name)
    (tmp_path / "my_task.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n" + CUSTOM.format(decorator=""))
    monkeypatch.setenv("FL_RUN_KEY", str(tmp_path / "another.key"))
    for format_ in ("keras", "tflite", "savedmodel"):
        with pytest.raises(StoreError, match=r"not made by this user.*my_task\.py.*--trust"):
            exported(app, run, format_, "--out", str(tmp_path / f"{format_}.keras"))
    assert not (tmp_path / "ran").exists()
    exported(app, run, "weights", "--out", str(tmp_path / "w.npz"))
    exported(app, run, "tflite", "--trust", "--out", str(tmp_path / "m.tflite"))
    np.testing.assert_allclose(run_tflite(tmp_path / "m.tflite", X), expected, rtol=1e-4, atol=1e-5)
    assert (tmp_path / "ran").exists()


def test_a_keras_file_of_somebody_else_is_not_opened_without_trust(
    app: typer.Typer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, expected = made(tmp_path / "run")
    monkeypatch.setenv("FL_RUN_KEY", str(tmp_path / "another.key"))
    opened = []
    load_model = keras.saving.load_model
    monkeypatch.setattr(keras.saving, "load_model", lambda path: opened.append(path) or load_model(path))
    for more in ([], ["--trust"]):
        result = CliRunner().invoke(
            app, ["export", str(run.directory), "--format", "tflite", "--out", str(tmp_path / "m.tflite"), *more]
        )
        assert result.exit_code == 0, result.output
        np.testing.assert_allclose(run_tflite(tmp_path / "m.tflite", X), expected, rtol=1e-4, atol=1e-5)
        assert len(opened) == len(more)
        assert ("not opened without --trust" in result.stderr) is not bool(more)
