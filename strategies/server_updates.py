"""The server's optimizers as Keras optimizers over the pseudo-gradient: Reddi et al. 2021 (arXiv:2003.00295).

Keras's own Adam and Adagrad differ from the paper's algorithm 2 (bias correction; epsilon under the root), so the
three adaptive rules are written out here. Imported only when a server takes its first adaptive step: needs TensorFlow.
"""

from typing import Any

from fl_common.models.frameworks import keras

ops = keras.ops


class Adaptive(keras.optimizers.Optimizer):  # type: ignore[misc]
    """Algorithm 2: m = b1 m + (1 - b1) d; v by the subclass; x = x + rate * m / (sqrt(v) + tau); v starts at tau^2.

    Keras hands over the gradient g = x - mean, so d = -g; v takes d^2 = g^2 and the sign of m is turned.
    """

    def __init__(self, learning_rate: float, *, beta_1: float, beta_2: float, tau: float) -> None:
        super().__init__(learning_rate=learning_rate)
        self.beta_1, self.beta_2, self.tau = beta_1, beta_2, tau

    def build(self, variables: list[Any]) -> None:
        """Create m and v for each variable."""
        if self.built:
            return
        super().build(variables)
        self.first = [self.add_variable_from_reference(each, "first_moment") for each in variables]
        self.second = [self.add_variable_from_reference(each, "second_moment") for each in variables]
        for moment in self.second:
            moment.assign(ops.full(moment.shape, self.tau**2, dtype=moment.dtype))

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        """Apply one step to one variable."""
        index = self._get_variable_index(variable)
        gradient, rate = ops.cast(gradient, variable.dtype), ops.cast(learning_rate, variable.dtype)
        first = self.beta_1 * self.first[index] + (1 - self.beta_1) * gradient
        second = self.second_moment(self.second[index], ops.square(gradient))
        self.assign(self.first[index], first)
        self.assign(self.second[index], second)
        self.assign_sub(variable, rate * first / (ops.sqrt(second) + self.tau))

    def second_moment(self, v: Any, squared: Any) -> Any:
        """Return the next v from the last and from d^2; here FedAdam's (line 13 of the algorithm, third case)."""
        return self.beta_2 * v + (1 - self.beta_2) * squared


class Adam(Adaptive):
    """v = b2 v + (1 - b2) d^2."""


class Yogi(Adaptive):
    """v = v - (1 - b2) d^2 sign(v - d^2)."""

    def second_moment(self, v: Any, squared: Any) -> Any:
        """Return the next v from the last and from d^2."""
        return v - (1 - self.beta_2) * squared * ops.sign(v - squared)


class Adagrad(Adaptive):
    """v = v + d^2."""

    def second_moment(self, v: Any, squared: Any) -> Any:
        """Return the next v from the last and from d^2."""
        return v + squared


def momentum(learning_rate: float, beta: float) -> Any:
    """Return FedAvgM's optimizer, Keras's SGD: v = beta v - rate g; x = x + v."""
    return keras.optimizers.SGD(learning_rate, momentum=beta)
