"""The arrays of a message that has come in chunks, joined with one copy; Flower's own way holds each four times."""

import json
from collections import Counter
from typing import Any

from flwr.app import Array
from flwr.app.message.arraychunk import ArrayChunk
from flwr.supercore.constant import HEAD_BODY_DIVIDER
from flwr.supercore.inflatable.inflatable_object import (
    InflatableObject,
    get_object_body,
    get_object_head_values_from_object_content,
)

ARRAY, CHUNK = (f"{kind.__qualname__} ".encode() for kind in (Array, ArrayChunk))  # how their contents begin


def joined(contents: dict[str, bytes]) -> dict[str, InflatableObject]:
    """Take the chunks of arrays out of a message's objects; return the arrays by their ids.

    Raises ValueError, TypeError, LookupError or AttributeError where these are no arrays.
    """
    described = {identity: _described(content) for identity, content in contents.items() if content.startswith(ARRAY)}
    uses = Counter(chunk for _, order in described.values() for chunk in set(order))
    arrays: dict[str, InflatableObject] = {}
    for identity, (about, order) in described.items():
        data = b"".join([_body(contents[chunk]) for chunk in order])
        arrays[identity] = Array(str(about["dtype"]), tuple(map(int, about["shape"])), str(about["stype"]), data)
        for chunk in set(order):
            uses[chunk] -= 1
            if not uses[chunk]:
                del contents[chunk]
    return arrays


def _described(content: bytes) -> tuple[dict[str, Any], list[str]]:
    """Return what an array's object says of it, and its chunks in order."""
    _, children, _ = get_object_head_values_from_object_content(content)
    about = json.loads(get_object_body(content, Array))
    order = [children[place] for place in about["arraychunk_ids"]]
    if set(order) != set(children):
        raise ValueError("an array's chunks are not those that it names")
    return about, order


def _body(content: bytes) -> memoryview:
    if not content.startswith(CHUNK):
        raise ValueError("an array has something else among its chunks")
    return memoryview(content)[content.find(HEAD_BODY_DIVIDER) + len(HEAD_BODY_DIVIDER) :]
