"""A rule that tf.vectorized_map lacks, without which it loops over clients: Bitcast, in Keras's argmax."""

from typing import Any

from fl_common.models.frameworks import tf


def register() -> None:
    """Teach TensorFlow the rule, once."""
    from tensorflow.python.ops.parallel_for import pfor

    if "Bitcast" in pfor._pfor_converter_registry:
        return

    @pfor.RegisterPFor("Bitcast")  # type: ignore[untyped-decorator]
    def convert(pfor_input: Any) -> Any:
        before, after = pfor_input.stacked_input(0), pfor_input.get_attr("type")
        if before.dtype.size != after.size:
            raise ValueError(f"Bitcast of {before.dtype} to {after} changes the shape")
        return pfor.wrap(tf.bitcast(before, after), True)
