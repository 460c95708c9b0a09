"""A traced TensorFlow program that several workers run at once: each has its own copies of the variables it writes."""

from collections.abc import Callable
from typing import Any

from fl_common.models.frameworks import tf

Tensor = Any


class Program:
    """`function` traced once for arguments of these specs; dictionaries and tuples of tensors are arguments too.

    The first worker's variables are the model's own. What another worker needs is copied when it first runs; the
    function must therefore write a variable before it reads it, or never write it.
    """

    def __init__(self, function: Callable[..., Any], specs: Any) -> None:
        def run(*flat: Tensor) -> Any:
            return function(*tf.nest.pack_sequence_as(specs, flat))

        flat = tf.nest.flatten(specs)
        self._dtypes = [each.dtype for each in flat]
        self.concrete = tf.function(run, autograph=False).get_concrete_function(*flat)
        self._captured: dict[int, list[Any]] = {0: list(self.concrete.captured_inputs)}
        self._copies: list[Any] = []

    def __call__(self, *arguments: Any, worker: int = 0) -> Any:
        """Run it with arrays or tensors, as one worker; workers may run at the same time."""
        flat = zip(tf.nest.flatten(arguments), self._dtypes, strict=True)
        tensors = [value if isinstance(value, tf.Tensor) else tf.constant(value, dtype) for value, dtype in flat]
        return self.concrete._call_flat(tensors, self._of(worker))

    def _of(self, worker: int) -> list[Any]:
        if worker not in self._captured:
            own = {id(variable.handle): self._copy(variable) for variable in self.concrete.graph.variables}
            self._captured[worker] = [own.get(id(each), each) for each in self._captured[0]]
        return self._captured[worker]

    def _copy(self, variable: Any) -> Any:
        copy = tf.Variable(variable.read_value(), trainable=False, dtype=variable.dtype, shape=variable.shape)
        self._copies.append(copy)
        return copy.handle
