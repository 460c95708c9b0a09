"""FedAvgM, FedAdam, FedYogi, FedAdagrad: a Keras optimizer takes the server's step along current model - mean."""

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fl_common.errors import StrategyError
from fl_common.messages.arrays import Arrays, is_float
from strategies.fedavg import FedAvg


class FedOpt(FedAvg):
    """FedAvg with a server optimizer: Reddi et al. 2021 (arXiv:2003.00295), algorithm 1.

    The pseudo-gradient is current - mean, so that a learning rate of 1 with plain SGD is FedAvg. Variables named in
    `non_trainable`, such as BatchNorm's statistics, take the mean. Subclasses return a Keras optimizer.
    """

    def __init__(self, **fedavg: Any) -> None:
        super().__init__(**fedavg)
        self._optimizer: Any = None
        self._variables: dict[str, Any] = {}
        self._restored: dict[str, NDArray[Any]] = {}

    @abstractmethod
    def optimizer(self) -> Any:
        """Return a new Keras optimizer."""

    def step(self, current: Arrays, mean: Arrays) -> Arrays:
        """Return the model after one step of the server optimizer; dtypes are kept."""
        self._build(current)
        for name, variable in self._variables.items():
            variable.assign(current[name])
        gradients = [current[name] - mean[name] for name in self._variables]
        self._optimizer.apply(gradients, list(self._variables.values()))
        moved = {name: np.array(variable.numpy()) for name, variable in self._variables.items()}
        return {name: moved.get(name, array) for name, array in mean.items()}

    def state(self) -> dict[str, NDArray[Any]]:
        """Return the optimizer's variables (step count, learning rate, moments) by name."""
        if self._optimizer is None:
            return dict(self._restored)
        return {path: np.array(variable.numpy()) for path, variable in self._optimizer_variables().items()}

    def restore(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Take back what `state` returned; it is written into the optimizer before its next step."""
        self._optimizer, self._variables, self._restored = None, {}, dict(state)

    def _build(self, current: Arrays) -> None:
        if self._optimizer is not None:
            return
        from fl_common.models.frameworks import keras

        names = [name for name, array in current.items() if is_float(array.dtype) and name not in self.non_trainable]
        self._variables = {
            name: keras.Variable(
                current[name], dtype=current[name].dtype.name, name=f"{index}.{name.replace('/', '.')}"
            )
            for index, name in enumerate(names)  # the index, because Keras has no "/" in names: a/b and a.b would meet
        }
        self._optimizer = self.optimizer()
        self._optimizer.build(list(self._variables.values()))
        self._write_restored()

    def _optimizer_variables(self) -> dict[str, Any]:
        # Keras counts optimizers up (adam, adam_1): its prefix would differ in the process that resumes.
        name, prefix = type(self).__name__, f"{self._optimizer.name}/"
        return {f"{name}/{each.path.removeprefix(prefix)}": each for each in self._optimizer.variables}

    def _write_restored(self) -> None:
        if not self._restored:
            return
        variables = self._optimizer_variables()
        if variables.keys() != self._restored.keys():
            different = ", ".join(sorted(variables.keys() ^ self._restored.keys())[:3])
            raise StrategyError(f"the saved state is not {type(self).__name__}'s for this model: {different} differ")
        for path, variable in variables.items():
            variable.assign(self._restored[path])
        self._restored = {}


class FedAvgM(FedOpt):
    """Server momentum: Hsu et al. 2019 (arXiv:1909.06335), section 4.3. `learning_rate` 1 and `momentum` 0: FedAvg."""

    def __init__(self, *, learning_rate: float = 1.0, momentum: float = 0.9, **fedavg: Any) -> None:
        super().__init__(**fedavg)
        self.learning_rate, self.momentum = learning_rate, momentum

    def optimizer(self) -> Any:
        """Return Keras's SGD with momentum."""
        from strategies.server_updates import momentum

        return momentum(self.learning_rate, self.momentum)


class FedAdam(FedOpt):
    """Reddi et al. 2021, algorithm 2. No bias correction; v starts at tau^2; tau is added outside the root."""

    rule = "Adam"

    def __init__(
        self,
        *,
        learning_rate: float = 0.1,
        beta_1: float = 0.9,
        beta_2: float = 0.99,
        tau: float = 1e-3,
        **fedavg: Any,
    ) -> None:
        super().__init__(**fedavg)
        self.learning_rate, self.beta_1, self.beta_2, self.tau = learning_rate, beta_1, beta_2, tau

    def optimizer(self) -> Any:
        """Return the paper's rule as a Keras optimizer."""
        from strategies import server_updates

        rule = getattr(server_updates, self.rule)
        return rule(self.learning_rate, beta_1=self.beta_1, beta_2=self.beta_2, tau=self.tau)


class FedYogi(FedAdam):
    """Reddi et al. 2021, algorithm 2, with Yogi's second moment."""

    rule = "Yogi"


class FedAdagrad(FedAdam):
    """Reddi et al. 2021, algorithm 2, with Adagrad's second moment; `beta_1` 0 is the paper's experiments'."""

    rule = "Adagrad"

    def __init__(self, *, beta_1: float = 0.0, **fedadam: Any) -> None:
        super().__init__(beta_1=beta_1, **fedadam)
