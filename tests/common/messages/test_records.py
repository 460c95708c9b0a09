import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, RecordDict

from fl_common.messages.arrays import encode
from fl_common.messages.records import with_fields


def test_a_copy_has_the_fields_shares_the_arrays_and_leaves_the_original_alone():
    arrays = encode({"w": np.zeros(3, np.float32)})
    content = RecordDict({"arrays": arrays, "config": ConfigRecord({"server-round": 4})})
    told = with_fields(content, {"client": 2, "partition": 2})
    assert told == RecordDict(
        {"arrays": arrays, "config": ConfigRecord({"server-round": 4, "client": 2, "partition": 2})}
    )
    assert told["arrays"] is arrays
    assert isinstance(told["arrays"], ArrayRecord)
    assert dict(content["config"]) == {"server-round": 4}


def test_a_copy_is_one_of_flowers_own_and_travels():
    content = RecordDict({"config": ConfigRecord({"server-round": 4})})
    told = with_fields(content, {"client": 2})
    told["config"]["more"] = 1.5
    assert RecordDict.inflate(told.deflate(), {each.object_id: each for each in told.children.values()}) == told
