"""Whatever a client sends, a reply is admitted as it should be, or rejected with one of the known reasons."""

import json
import struct

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from hypothesis import given, settings
from hypothesis import strategies as st

from fl_common.errors import RejectedReply
from fl_common.messages import packed_arrays
from fl_common.messages.arrays import Signature, decode, encode
from strategies.replies import REASONS, admit
from tests.fuzz import EXAMPLES

MODEL = {"dense/kernel": np.ones((3, 2), np.float32), "dense/bias": np.zeros(2, np.float32), "steps": np.array(3)}
SIGNATURE = Signature.of(MODEL)
NUMBERS = st.one_of(st.integers(-(2**63), 2**63 - 1), st.floats(), st.booleans())
JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=6)),
    lambda inner: st.one_of(st.lists(inner, max_size=5), st.dictionaries(st.text(max_size=3), inner, max_size=3)),
    max_leaves=12,
)
NAMES = st.one_of(st.sampled_from([*MODEL, "arrays", "metrics", "num-examples"]), st.text(max_size=8))


@st.composite
def mutated(draw: st.DrawFn, good: bytes) -> bytes:
    """Bytes that are nearly `good`: some flipped, cut out, or put in."""
    data = bytearray(good)
    for _ in range(draw(st.integers(1, 3))):
        place = draw(st.integers(0, max(0, len(data) - 1)))
        what = draw(st.sampled_from(["flip", "cut", "insert", "end"]))
        if what == "flip" and data:
            data[place] ^= draw(st.integers(1, 255))
        elif what == "cut":
            del data[place : place + draw(st.integers(1, 16))]
        elif what == "insert":
            data[place:place] = draw(st.binary(max_size=8))
        else:
            data = data[:place]
    return bytes(data)


@st.composite
def arrays_of_any_kind(draw: st.DrawFn) -> Array:
    name = draw(st.sampled_from(list(MODEL)))
    good = encode({name: MODEL[name]})[name]
    return draw(
        st.one_of(
            st.just(good),
            mutated(good.data).map(lambda data: Array(good.dtype, good.shape, good.stype, data)),
            st.builds(
                Array, dtype=st.one_of(st.just(good.dtype), st.text(max_size=5)),
                shape=st.lists(st.integers(-3, 2**62), max_size=3).map(tuple),
                stype=st.one_of(st.just(good.stype), st.text(max_size=5)),
                data=st.one_of(st.just(good.data), st.binary(max_size=64)),
            ),
        )
    )  # fmt: skip


RECORDS = st.one_of(
    st.dictionaries(NAMES, arrays_of_any_kind(), max_size=4).map(ArrayRecord),
    st.just(encode(MODEL)),
    st.dictionaries(NAMES, st.one_of(NUMBERS.filter(lambda n: not isinstance(n, bool)), st.lists(st.floats(), max_size=2)),
                    max_size=4).map(MetricRecord),
    st.dictionaries(NAMES, st.one_of(NUMBERS, st.binary(max_size=20), st.text(max_size=5)), max_size=3).map(ConfigRecord),
)  # fmt: skip


def reply(content: RecordDict) -> Message:
    message = Message(content, dst_node_id=5, message_type="train")
    return Message(content, reply_to=_received(message))


def _received(message: Message) -> Message:
    message.metadata.__dict__ |= {"_message_id": "one", "_src_node_id": 1, "_run_id": 7}
    return message


@settings(max_examples=EXAMPLES, deadline=None)
@given(st.dictionaries(st.one_of(st.sampled_from(["arrays", "metrics", "arrays~small"]), NAMES), RECORDS, max_size=4),
       st.booleans())  # fmt: skip
def test_a_reply_of_any_content_is_admitted_whole_or_rejected(records: dict, training: bool) -> None:  # type: ignore[type-arg]
    try:
        content = packed_arrays.unpack(RecordDict(records))
        admitted = admit(reply(content), SIGNATURE if training else None)
    except RejectedReply as rejection:
        assert rejection.reason in REASONS
        return
    assert 0 <= admitted.weight <= 10_000_000
    if training:
        assert admitted.weight > 0
        assert Signature.of(dict(admitted.arrays)) == SIGNATURE
        assert all(np.isfinite(array).all() for array in admitted.arrays.values())


@settings(max_examples=EXAMPLES, deadline=None)
@given(arrays_of_any_kind())
def test_an_array_of_any_bytes_is_read_exactly_or_rejected(array: Array) -> None:
    try:
        values = decode(array)
    except RejectedReply as rejection:
        assert rejection.reason == "malformed"
        return
    assert values.nbytes <= len(array.data)
    assert not values.flags.writeable or values.size == 0


@settings(max_examples=EXAMPLES, deadline=None)
@given(st.data())
def test_packed_arrays_that_were_changed_on_the_way_are_read_or_rejected(data: st.DataObject) -> None:
    packed = packed_arrays.pack(RecordDict({"arrays": encode(MODEL)}))
    key = f"arrays{packed_arrays.SUFFIX}"
    changed = data.draw(mutated(packed[key][packed_arrays.FIELD]))  # type: ignore[index, arg-type]
    _unpacks_or_rejects(ConfigRecord({packed_arrays.FIELD: changed}))


@settings(max_examples=EXAMPLES, deadline=None)
@given(JSON, st.binary(max_size=40), st.one_of(st.none(), st.integers(0, 2**32 - 1)))
def test_a_header_of_any_json_is_read_or_rejected(header: object, rest: bytes, length: int | None) -> None:
    text = json.dumps(header).encode()
    size = len(text) if length is None else length
    _unpacks_or_rejects(ConfigRecord({packed_arrays.FIELD: struct.pack("<I", size) + text + rest}))


@settings(max_examples=EXAMPLES, deadline=None)
@given(st.lists(st.tuples(NAMES, st.text(max_size=4), st.lists(JSON, max_size=2), st.text(max_size=4), JSON), max_size=3),
       st.binary(max_size=40))  # fmt: skip
def test_a_header_of_the_right_form_with_any_values_is_read_or_rejected(described: list, rest: bytes) -> None:  # type: ignore[type-arg]
    text = json.dumps([[each[0] for each in described], described]).encode()
    _unpacks_or_rejects(ConfigRecord({packed_arrays.FIELD: struct.pack("<I", len(text)) + text + rest}))


def test_a_shape_beyond_integers_is_rejected() -> None:
    text = b'[["w"], [["w", "float32", [Infinity], "numpy.ndarray", 0]]]'
    with pytest.raises(RejectedReply, match="malformed"):
        packed_arrays.unpack(
            RecordDict(
                {
                    f"arrays{packed_arrays.SUFFIX}": ConfigRecord(
                        {packed_arrays.FIELD: struct.pack("<I", len(text)) + text}
                    )
                }
            )
        )


def _unpacks_or_rejects(record: ConfigRecord) -> None:
    try:
        content = packed_arrays.unpack(RecordDict({f"arrays{packed_arrays.SUFFIX}": record}))
    except RejectedReply as rejection:
        assert rejection.reason == "malformed"
        return
    for array in content["arrays"].values():  # type: ignore[union-attr]
        assert len(array.data) <= len(record[packed_arrays.FIELD])  # type: ignore[arg-type]
