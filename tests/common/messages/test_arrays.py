"""Arrays by name: what is sent is what arrives, and a stranger's bytes are rejected, whatever they are."""

from contextlib import suppress

import ml_dtypes
import numpy as np
import pytest
from flwr.app import Array, ArrayRecord
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from fl_common.errors import RejectedReply, StrategyError, TaskError
from fl_common.messages.arrays import Signature, check_finite, conform, decode, decode_record, encode
from fl_common.models.frameworks import keras
from fl_common.models.weights import assign, names_of, non_trainable_names, weights_of

MODEL = {"dense/kernel": np.ones((3, 2), np.float32), "seen": np.array(7, np.int64)}
DTYPES = st.sampled_from(["float16", "float32", "float64", "int32", "int64", "uint8", "bool"]).map(np.dtype)


def rejected(record: ArrayRecord, like: dict[str, np.ndarray] = MODEL) -> str:
    with pytest.raises(RejectedReply) as caught:
        decode_record(record, Signature.of(like))
    return caught.value.reason


@given(hnp.arrays(DTYPES, hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4)))
@settings(max_examples=50, deadline=None)
def test_what_is_encoded_is_decoded_to_the_bit_and_flower_reads_it_too(array):
    record = encode({"a": array})
    ours = decode_record(record, Signature.of({"a": array}))["a"]
    assert ours.dtype == array.dtype
    assert ours.shape == array.shape
    assert ours.tobytes() == array.tobytes() == record["a"].numpy().tobytes()


def test_arrays_that_flower_encoded_are_decoded_whatever_their_memory_order():
    array = np.asfortranarray(np.arange(6, dtype=np.float32).reshape(2, 3))
    assert np.array_equal(decode(Array(array)), array)
    assert np.array_equal(decode(encode({"a": array.T})["a"]), array.T)


def test_bfloat16_survives_though_numpys_format_does_not_know_it():
    array = np.arange(4).astype(ml_dtypes.bfloat16)
    decoded = decode_record(encode({"a": array}), Signature.of({"a": array}))["a"]
    assert decoded.dtype == array.dtype
    assert np.array_equal(decoded, array)


def test_decoding_copies_nothing_and_gives_read_only_views():
    array = encode(MODEL)["dense/kernel"]
    view = decode(array)
    assert not view.flags.writeable
    assert np.shares_memory(view, np.frombuffer(array.data, np.uint8))


def test_the_signature_knows_the_models_bytes():
    assert Signature.of(MODEL).nbytes == 3 * 2 * 4 + 8


def test_arrays_come_out_in_the_models_order():
    assert list(decode_record(encode(dict(reversed(MODEL.items()))), Signature.of(MODEL))) == list(MODEL)


def test_a_reply_with_other_names_shapes_or_dtypes_is_rejected_with_the_reason():
    assert rejected(encode({"dense/kernel": MODEL["dense/kernel"]})) == "name"
    assert rejected(encode(MODEL | {"more": np.ones(1)})) == "name"
    assert rejected(encode(MODEL | {"dense/kernel": np.ones((2, 3), np.float32)})) == "shape"
    assert rejected(encode(MODEL | {"dense/kernel": np.ones((3, 2), np.float64)})) == "dtype"
    assert rejected(encode(MODEL | {"dense/kernel": np.ones((3, 2), ">f4")})) == "dtype"


def test_truncated_padded_and_foreign_bytes_are_malformed():
    good = encode(MODEL)["dense/kernel"]
    for data in (b"", b"\x93NUMPY", good.data[:-1], good.data + b"\0", good.data.replace(b"<f4", b"|O8")):
        bad = Array(dtype="float32", shape=(3, 2), stype=good.stype, data=data)
        assert rejected(ArrayRecord({"dense/kernel": bad, "seen": encode(MODEL)["seen"]})) == "malformed"
    other = Array(dtype="float32", shape=(3, 2), stype="pickle", data=good.data)
    assert rejected(ArrayRecord({"dense/kernel": other, "seen": encode(MODEL)["seen"]})) == "malformed"


@given(st.binary(max_size=200))
@settings(max_examples=100, deadline=None)
def test_random_bytes_never_raise_anything_but_a_rejection(data):
    with pytest.raises(RejectedReply):
        decode(Array(dtype="float32", shape=(3,), stype="numpy.ndarray", data=data))


HEADERS = st.text("{}()[]'\": ,<>=|dfoiescrptahanu_TrueFals0123456789-\\\n#", max_size=80)
SHAPES = st.lists(st.integers(-2, 10**30), max_size=70).map(tuple)
DESCRS = st.sampled_from(["<f4", "|S0", "|O", "(2,)f4", "<M8", "", "V2", [("a", "<f4")], 7, None])
PLAUSIBLE = st.builds(lambda d, f, s: repr({"descr": d, "fortran_order": f, "shape": s}), DESCRS, st.booleans(), SHAPES)


@given(HEADERS | PLAUSIBLE, st.sampled_from([1, 2, 3, 9]), st.binary(max_size=16))
@settings(max_examples=300, deadline=None)
def test_random_headers_never_raise_anything_but_a_rejection(header, version, body):
    text = header.encode()
    length = len(text).to_bytes(2 if version == 1 else 4, "little")
    with suppress(RejectedReply):
        decode(Array("float32", (3,), "numpy.ndarray", b"\x93NUMPY" + bytes([version, 0]) + length + text + body))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", ml_dtypes.bfloat16])
def test_a_single_nan_or_infinity_is_found_and_named(bad, dtype):
    array = np.zeros(300_000, dtype)
    check_finite({"a": array})
    array[-1] = bad
    with pytest.raises(RejectedReply, match="not-finite: a holds"):
        check_finite({"ok": np.ones(2), "count": np.array(3), "a": array})


def test_huge_finite_values_whose_sum_overflows_are_finite():
    check_finite({"a": np.full(1000, np.finfo(np.float32).max, np.float32)})


def test_a_strategys_result_gets_the_models_dtypes_shapes_and_order_and_keeps_its_integers():
    result = ArrayRecord({"seen": Array(np.array(9.5)), "dense/kernel": Array(np.full(6, 2.0))})
    out = conform(result, MODEL)
    assert list(out) == list(MODEL)
    assert out["dense/kernel"].dtype == np.float32
    assert out["dense/kernel"].shape == (3, 2)
    assert out["seen"] is MODEL["seen"]


def test_a_strategys_result_of_other_names_or_sizes_is_an_error():
    with pytest.raises(StrategyError, match="other names"):
        conform(ArrayRecord({"0": Array(np.ones(6))}), MODEL)
    with pytest.raises(StrategyError, match="shape"):
        conform(encode(MODEL | {"dense/kernel": np.ones(5)}), MODEL)


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__()
        self.dense = keras.layers.Dense(2)
        self.norm = keras.layers.BatchNormalization()

    def call(self, x):
        return self.norm(self.dense(x))


def subclassed():
    model = Subclassed()
    model(np.zeros((1, 3)))
    return model


def functional():
    inputs = keras.Input((3,))
    return keras.Model(inputs, keras.layers.Dropout(0.5)(keras.layers.Dense(2)(inputs)))


def sequential():
    return keras.Sequential([keras.Input((3,)), keras.layers.Dense(2), keras.layers.Dropout(0.5)])


@pytest.mark.parametrize("build", [subclassed, functional, sequential])
def test_a_model_built_twice_has_the_same_names_and_takes_its_own_weights_back(build):
    keras.utils.clear_session()
    first = build()
    keras.utils.clear_session()
    second = build()
    arrays = weights_of(first)
    assert names_of(first) == names_of(second)
    assert "dense/kernel" in arrays
    assign(second, arrays)
    assert all(np.array_equal(arrays[name], array) for name, array in weights_of(second).items())


def test_the_arrays_of_a_model_do_not_change_when_the_model_does():
    model = sequential()
    arrays = weights_of(model)
    kernel = next(iter(arrays.values())).copy()
    assign(model, {name: array + 1 for name, array in arrays.items()})
    assert np.array_equal(next(iter(arrays.values())), kernel)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (lambda arrays: {**arrays, "dense/bias": np.zeros(5, np.float32)}, "dense/bias: the model's shape is"),
        (lambda arrays: {"dense/kernel": arrays["dense/kernel"]}, "are not this model's: .*dense/bias"),
    ],
    ids=["a shape", "a name"],
)
def test_arrays_that_do_not_fit_leave_a_model_as_it_was(wrong, said):
    keras.utils.clear_session()
    model = sequential()
    before = weights_of(model)
    with pytest.raises(TaskError, match=said):
        assign(model, wrong({name: array + 1 for name, array in before.items()}))
    assert all(np.array_equal(before[name], array) for name, array in weights_of(model).items())


def test_batch_norms_statistics_are_named_as_not_trainable():
    keras.utils.clear_session()
    names = non_trainable_names(subclassed())
    assert names == {"batch_normalization/moving_mean", "batch_normalization/moving_variance"}
