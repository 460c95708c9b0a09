"""TensorFlow Federated: build_weighted_fed_avg of a Keras model on the local C++ runtime, a client at a time a core.

Variants: "" is as its tutorials have it; "functional-iterator" a functional model and the loop DATASET_ITERATOR.
"""

import os
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras_models
import numpy as np
import tensorflow as tf
import tensorflow_federated as tff
from plan import Plan, Report, arguments


def main() -> None:
    asked = arguments()
    plan = Plan(asked.plan)
    x, y = plan.scaled()
    spec = (tf.TensorSpec((None, 28, 28), tf.float32), tf.TensorSpec((None,), tf.int32))

    def model_fn():
        return tff.learning.models.from_keras_model(
            keras_models.build(tf.keras, asked.model),
            loss=tf.keras.losses.SparseCategoricalCrossentropy(),
            input_spec=spec,
        )

    model = model_fn
    if "functional" in asked.variant:
        model = tff.learning.models.functional_model_from_keras(
            keras_models.build(tf.keras, asked.model), tf.keras.losses.SparseCategoricalCrossentropy(), spec
        )
    loops = tff.learning.LoopImplementation
    process = tff.learning.algorithms.build_weighted_fed_avg(
        model,
        client_optimizer_fn=tff.learning.optimizers.build_sgdm(asked.learning_rate),
        server_optimizer_fn=tff.learning.optimizers.build_sgdm(1.0),
        loop_implementation=loops.DATASET_ITERATOR if "iterator" in asked.variant else loops.DATASET_REDUCE,
    )
    cores = len(os.sched_getaffinity(0))
    tff.backends.native.set_sync_local_cpp_execution_context(max_concurrent_computation_calls=cores)
    state = process.initialize()
    weights = tff.learning.models.ModelWeights(plan.weights, [])
    state = process.set_model_weights(state, weights)
    report = Report(asked)
    for number in report.numbers():
        rows = [plan.rows(number, place) for place in range(len(plan.cohorts[number]))]
        data = [tf.data.Dataset.from_tensor_slices((x[mine], y[mine])).batch(asked.batch_size) for mine in rows]
        began = time.perf_counter()
        state = process.next(state, data).state
        report.round(time.perf_counter() - began)
    net = keras_models.build(tf.keras, asked.model)
    process.get_model_weights(state).assign_weights_to(net)
    found = net.predict(plan.x_test.astype(np.float32) / 255, batch_size=1000, verbose=0).argmax(1)
    report.end((found == plan.y_test).mean(), "tensorflow-federated", "tensorflow", "numpy")


if __name__ == "__main__":
    main()
