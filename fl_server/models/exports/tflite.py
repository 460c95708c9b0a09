"""A TFLite file of what a model computes with training off, of operations that every TFLite interpreter has."""

import re
import warnings
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from fl_common.errors import ExportError
from fl_common.models.frameworks import keras, tf
from fl_common.processes.streams import without_stderr
from fl_server.models.exports import same_answers, saved_model
from fl_server.models.exports.inputs import Inputs, Sample
from fl_server.models.exports.reasons import reason

SIGNATURE = "serving_default"
FOREIGN = re.compile(r"(?:Select|Flex|Custom) ops: (.+)")
COARSE = ("float16", "bfloat16")


class InFloat32(keras.DTypePolicy):  # type: ignore[misc]
    """A policy whose layers keep their variables as they are, and compute in float32."""

    @property
    def compute_dtype(self) -> str:
        """The dtype of a layer's arithmetic."""
        return "float32"


def compute_in_float32(model: keras.Model) -> bool:
    """Have layers of half precision compute in float32, since TFLite knows few operations of less; say if any did."""
    coarse = [layer for layer in model._flatten_layers() if layer.compute_dtype in COARSE]
    for layer in coarse:
        layer.dtype_policy = InFloat32(layer.dtype_policy.name)
    return bool(coarse)


def convert(model: keras.Model, inputs: Inputs) -> tuple[bytes, int | None]:
    """Return a TFLite file, and how many examples it takes at a time: None for any number, or 1.

    Each was run in the interpreter of this installation. A recurrent layer converts for a known number of examples
    only. Raises ExportError, with the operations that are not TFLite's, where there is no file that runs.
    """
    same_answers.refuse_random(model, inputs, same_answers.tolerance(model))
    for batch in (None, 1):
        try:
            content = _converted(model, inputs.of_batch(batch))
            _hold(content, inputs, batch, same_answers.tolerance(model))
        except ExportError as error:
            refused = error
        else:
            return content, batch
    raise refused


def _converted(model: keras.Model, specs: Any) -> bytes:
    with TemporaryDirectory() as directory:
        saved_model.save(model, specs, Path(directory))
        converter = tf.lite.TFLiteConverter.from_saved_model(directory)
        try:
            with without_stderr():  # where the converter prints its program, whatever the level of the log
                return bytes(converter.convert())
        except Exception as error:
            raise ExportError(_refusal(error)) from error


def _refusal(error: Exception) -> str:
    operations = sorted({name for found in FOREIGN.findall(str(error)) for name in found.split(", ")})
    if operations:
        return (
            f"the model needs operations that TFLite does not have (Flex): {', '.join(operations)}. Export it with "
            "--format savedmodel, or do outside of the model what needs them, as splitting texts into words."
        )
    return f"TFLite's converter refuses the model: {reason(error)}. Export it with --format savedmodel."


def _hold(content: bytes, inputs: Inputs, batch: int | None, allowed: float) -> None:
    samples = [sample.row(index) for sample in inputs.samples for index in range(sample.rows)]
    if batch is None:
        samples = [*inputs.samples, samples[0]]
    same_answers.hold(lambda sample: _answer(content, inputs, sample), samples, allowed, "TFLite file")


def _answer(content: bytes, inputs: Inputs, sample: Sample) -> list[Any]:
    given = zip(inputs.names(), keras.tree.flatten(sample.x), strict=True)
    with warnings.catch_warnings(), without_stderr():  # where the interpreter tells of its delegates
        warnings.simplefilter("ignore")  # it is moving into a package of its own
        runner = tf.lite.Interpreter(model_content=content).get_signature_runner(SIGNATURE)
        found = runner(**{name: tensor.numpy() for name, tensor in given})
    return [found[name] for name in _in_order(found)]


def _in_order(names: Any) -> list[str]:
    """Return the names of outputs in the order in which their structure is flattened: output_2 before output_10."""
    return sorted(names, key=lambda name: (0, int(name[7:]), "") if re.fullmatch(r"output_\d+", name) else (1, 0, name))
