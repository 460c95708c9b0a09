"""What a reply may consist of, by what its question asks for: counted before anything is built from it.

Flower's objects name each other: a few kilobytes may stand for a million metrics, or for one chunk of an array repeated
until memory ends. Nothing here is inflated before it has passed.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from flwr.proto.message_pb2 import ObjectTree
from flwr.proto.recorddict_pb2 import ConfigRecord, MetricRecord
from flwr.supercore.constant import HEAD_BODY_DIVIDER
from flwr.supercore.inflatable.inflatable_object import get_object_head_values_from_object_content

from fl_common.errors import RejectedReply
from fl_server.rounds.reply_limits import MB, allowed_bytes
from strategies.replies import MOST_METRICS

MOST_OBJECTS = 50_000  # of any reply
FEW_OBJECTS, FEW_ENTRIES = 64, 64  # a message, its records and what a strategy adds
OBJECTS_PER_ARRAY = 4  # the array, its chunk, and as many for what a strategy keeps beside it
CHUNK = 2 * MB  # Flower cuts arrays into chunks of 5
NAME_BYTES = 4096  # of an entry in a record: its name, and the id that it stands for
DEEPEST = 8  # message, content, record, array, chunk: 5
ENTRIES: dict[str, Any] = {"MetricRecord": MetricRecord, "ConfigRecord": ConfigRecord}


@dataclass(frozen=True)
class Bounds:
    """The most of a reply: its bytes, and the arrays of the model that was sent. 0: any number."""

    size: int = 0
    arrays: int = 0

    @property
    def objects(self) -> int:
        """How many objects a reply may have."""
        if not self.arrays:
            return MOST_OBJECTS
        return min(MOST_OBJECTS, FEW_OBJECTS + OBJECTS_PER_ARRAY * self.arrays + self.size // CHUNK)

    def check_tree(self, tree: ObjectTree) -> list[str]:
        """Return the ids of a reply's objects, its own last. Raises RejectedReply where there are too many."""
        found = objects_of(tree, self.objects)
        if found is None:
            raise RejectedReply("size", f"expected a reply of at most {self.objects} objects; got more")
        return found

    def check_contents(self, contents: Mapping[str, bytes]) -> None:
        """Raise RejectedReply where objects stand for more than a reply may hold; ValueError and such for garbage."""
        total = 0
        for content in contents.values():
            kind, children, _ = get_object_head_values_from_object_content(content)
            body = memoryview(content)[content.find(HEAD_BODY_DIVIDER) + len(HEAD_BODY_DIVIDER) :]
            if kind in ENTRIES:
                _check_entries(kind, body)
            elif kind == "Array":
                total += sum(len(contents[children[place]]) for place in self._json(body)["arraychunk_ids"])
            elif kind in ("ArrayRecord", "RecordDict"):
                self._json(body)
        if self.size and total > self.size:
            raise RejectedReply("size", f"expected arrays of at most {self.size / MB:.1f} MB; got {total / MB:.1f} MB")

    def _json(self, body: memoryview) -> Any:
        if len(body) > NAME_BYTES * (FEW_ENTRIES + self.objects):
            raise RejectedReply("malformed", f"expected the names of a record; got {len(body)} bytes")
        entries = json.loads(bytes(body))
        if self.arrays and len(entries) > FEW_ENTRIES + self.arrays * OBJECTS_PER_ARRAY:
            raise RejectedReply("name", f"expected at most {self.arrays} arrays; got {len(entries)}")
        return entries


def bounds_of(sent: Mapping[str, Any], max_reply_mb: float, *, arrays: bool) -> Bounds:
    """Return the bounds of a reply to `sent` arrays; `arrays` says whether it is to bring any itself."""
    size = sum(len(array.data) for array in sent.values())
    return Bounds(allowed_bytes(max_reply_mb, size if arrays else 0), max(1, len(sent)))


def objects_of(tree: ObjectTree, most: int) -> list[str] | None:
    """Return the ids in a tree, its head's last; None where it has more than `most`, or is deeper than any reply."""
    found: list[str] = []
    left = [(tree, 1)]
    while left:
        node, depth = left.pop()
        found.append(node.object_id)
        left += [(child, depth + 1) for child in node.children]
        if len(found) + len(left) > most or depth > DEEPEST:
            return None
    return found[::-1]


def _check_entries(kind: str, body: memoryview) -> None:
    count = len(ENTRIES[kind].FromString(bytes(body)).items)
    if count > MOST_METRICS:
        raise RejectedReply("metrics", f"expected at most {MOST_METRICS} entries in a record; got {count}")
