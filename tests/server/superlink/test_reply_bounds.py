"""What a reply may consist of is counted before anything is built from it."""

import json

import numpy as np
import pytest
from flwr.app import Array, ConfigRecord, MetricRecord, RecordDict
from flwr.app.message.arraychunk import ArrayChunk
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects, get_object_id
from flwr.supercore.inflatable.inflatable_utils import inflate_object_from_contents

from fl_common.errors import RejectedReply
from fl_common.messages.arrays import decode, encode
from fl_server.rounds.reply_limits import ROOM
from fl_server.superlink.fleet.reply_bounds import Bounds, bounds_of
from fl_server.superlink.grid.chunked_arrays import joined

FOUR = Bounds(10_000_000, arrays=4)


def contents_of(item):
    return {identity: each.deflate() for identity, each in get_all_nested_objects(item).items()}


def refused(content, bounds=FOUR):
    with pytest.raises(RejectedReply) as refusal:
        bounds.check_contents(contents_of(content))
    return refusal.value.reason, refusal.value.detail


def test_an_honest_reply_passes_and_is_put_together_as_it_was():
    arrays = {f"layer {place}": np.arange(place * 2_000_000, dtype=np.float32) for place in range(4)}
    reply = RecordDict({"arrays": encode(arrays), "metrics": MetricRecord({"loss": 1.0}), "c": ConfigRecord({"a": 1})})
    contents = contents_of(reply)
    Bounds(60_000_000, arrays=4).check_contents(contents)
    found = inflate_object_from_contents(reply.object_id, contents, objects=joined(contents))
    for name, array in arrays.items():
        np.testing.assert_array_equal(decode(found["arrays"][name]), array)
    assert sum(map(len, contents.values())) < 2000  # no chunk stays in memory beside its array


def test_metrics_beyond_what_any_model_has_are_refused_before_they_are_read():
    assert refused(MetricRecord({f"m{place}": 0.0 for place in range(20_000)}))[0] == "metrics"
    assert refused(ConfigRecord({f"m{place}": 0.0 for place in range(20_000)}))[0] == "metrics"


def test_more_arrays_than_the_model_has_are_refused_by_their_names():
    record = encode({"a": np.zeros(1)})
    array = record["a"]
    for place in range(300):
        record[f"a{place}"] = array
    assert refused(record) == ("name", "expected at most 4 arrays; got 301")


def test_one_chunk_that_stands_for_gigabytes_is_refused_before_it_is_repeated():
    chunk = ArrayChunk(bytes(1_000_000))
    body = json.dumps({"dtype": "float32", "shape": [1], "stype": "numpy.ndarray", "arraychunk_ids": [0] * 50_000})
    head = f"Array {chunk.object_id} {len(body)}".encode()
    bomb = head + b"\x00" + body.encode()
    contents = {chunk.object_id: chunk.deflate(), get_object_id(bomb): bomb}
    with pytest.raises(RejectedReply, match=r"expected arrays of at most 10\.0 MB; got 5000[01]\.0 MB"):
        FOUR.check_contents(contents)


@pytest.mark.parametrize("places", [[5], ["0"], None, [0, 0.5]])
def test_chunks_that_are_none_are_an_error_that_the_inbox_takes(places):
    array = Array(np.zeros(3, np.float32))
    contents = contents_of(array)
    identity = next(each for each, content in contents.items() if content.startswith(b"Array "))
    head, _, body = contents[identity].partition(b"\x00")
    contents[identity] = head + b"\x00" + json.dumps(json.loads(body) | {"arraychunk_ids": places}).encode()
    with pytest.raises((ValueError, TypeError, LookupError)):
        joined(contents)


def test_an_evaluation_asks_for_no_arrays_and_gets_room_for_none():
    sent = encode({"w": np.zeros(1_000_000, np.float32)})
    assert bounds_of(sent, 0.0, arrays=False).size == ROOM
    assert bounds_of(sent, 0.0, arrays=True).size > 8_000_000
    assert bounds_of(sent, 3.0, arrays=False).size == 3_000_000
