"""FedJAX: its federated_averaging. Variants: "" is its default backend, jit; "pmap" is pmap with a device a core.

FedJAX fills a client's last batch up with examples drawn again, so the steps are the same but not quite the numbers.
"""

import os
import sys
import time

if "pmap" in sys.argv:
    os.environ["XLA_FLAGS"] = f"--xla_force_host_platform_device_count={len(os.sched_getaffinity(0))}"

import fedjax
import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
from plan import Plan, Report, arguments


def network(name: str, x: jax.Array) -> jax.Array:
    if name == "mlp":
        return hk.Sequential([hk.Flatten(), hk.Linear(10), jax.nn.relu, hk.Linear(10)])(x)
    size, padding, filters = (5, "SAME", (32, 64)) if name == "cnn" else (3, "VALID", (16, 32))
    blocks = [lambda x: x[..., None]]
    for number in filters:
        blocks += [hk.Conv2D(number, size, padding=padding), jax.nn.relu, hk.MaxPool(2, 2, "VALID")]
    blocks += [hk.Flatten(), *([hk.Linear(512), jax.nn.relu] if name == "cnn" else []), hk.Linear(10)]
    return hk.Sequential(blocks)(x)


def main() -> None:
    asked = arguments()
    plan = Plan(asked.plan)
    if asked.variant:
        fedjax.set_for_each_client_backend(asked.variant)
    model = hk.without_apply_rng(hk.transform(lambda x: network(asked.model, x)))
    x, y = plan.scaled()
    empty = model.init(jax.random.PRNGKey(0), x[:1])
    params = filled(empty, plan.weights)

    def loss(params, batch, rng):
        logits = jax.nn.log_softmax(model.apply(params, batch["x"]))
        return -jnp.mean(jnp.take_along_axis(logits, batch["y"][:, None], 1))

    algorithm = fedjax.algorithms.fed_avg.federated_averaging(
        jax.grad(loss),
        client_optimizer=fedjax.optimizers.sgd(asked.learning_rate),
        server_optimizer=fedjax.optimizers.sgd(1.0),
        client_batch_hparams=fedjax.ShuffleRepeatBatchHParams(asked.batch_size, num_epochs=1, skip_shuffle=True),
    )
    state = algorithm.init(params)
    report = Report(asked)
    for number in report.numbers():
        cohort = plan.cohorts[number]
        keys = jax.random.split(jax.random.PRNGKey(number), len(cohort))
        datasets = [plan.rows(number, place) for place in range(len(cohort))]
        clients = [
            (client, fedjax.ClientDataset({"x": x[rows], "y": y[rows]}), key)
            for client, rows, key in zip(cohort, datasets, keys, strict=True)
        ]
        began = time.perf_counter()
        state, _ = algorithm.apply(state, clients)
        jax.block_until_ready(state.params)
        report.round(time.perf_counter() - began)
    predict = jax.jit(lambda params, x: model.apply(params, x).argmax(1))
    pictures = plan.x_test.astype(np.float32) / 255
    found = np.concatenate([predict(state.params, part) for part in np.split(pictures, 10)])
    report.end((found == plan.y_test).mean(), "fedjax", "jax", "dm-haiku", "numpy")


def filled(params, weights):
    """Return the parameters with the plan's values: haiku has w and b for each layer, in the plan's order."""
    values = iter(weights)
    return {layer: {"w": jnp.asarray(next(values)), "b": jnp.asarray(next(values))} for layer in params}


if __name__ == "__main__":
    main()
