"""Flower's object store, in the SuperLink's process: what of a message is there, and taking a reply back."""

from typing import Any

from flwr.supercore.object_store import ObjectStore
from flwr.supercore.object_store.in_memory_object_store import InMemoryObjectStore
from flwr.supercore.object_store.sql_object_store import SqlObjectStore

from fl_server.superlink.database import INDEXES
from fl_server.superlink.grid.pulling import WITHDRAWN

_UNAVAILABLE = """
WITH RECURSIVE tree(id) AS (
    SELECT :id UNION SELECT child_id FROM object_children JOIN tree ON object_children.parent_id = tree.id
) SELECT count(*) AS count FROM objects JOIN tree ON objects.object_id = tree.id WHERE is_available = 0
"""


def indexed(store: ObjectStore) -> None:
    """See to it that objects are deleted in a time that grows with their number, not with its square."""
    if isinstance(store, SqlObjectStore):
        for statement in INDEXES:
            store.query(statement)


def is_whole(store: ObjectStore, head: str) -> bool:
    """Say whether everything that belongs to a message has come; True where nothing of it is there any more."""
    if isinstance(store, SqlObjectStore):
        return not store.query(_UNAVAILABLE, {"id": head})[0]["count"]
    if isinstance(store, InMemoryObjectStore):
        with store.lock_store:
            return all(entry.is_available for entry in _tree(store, head))
    return True


def is_part(store: ObjectStore, object_id: str) -> bool:
    """Say whether an object is a part of another: then it is nobody's reply."""
    if isinstance(store, SqlObjectStore):
        return bool(store.query("SELECT 1 FROM objects WHERE object_id = :id AND ref_count > 0", {"id": object_id}))
    if isinstance(store, InMemoryObjectStore):
        with store.lock_store:
            entry = store.store.get(object_id)
            return entry is not None and entry.ref_count > 0
    return False


def withdraw(store: ObjectStore, head: str, mark: bytes = WITHDRAWN) -> None:
    """Drop the objects of a reply, and leave a mark in the place of its head: whoever waits for it learns that."""
    if is_part(store, head):
        return
    if isinstance(store, SqlObjectStore):
        _withdraw_sql(store, head, mark)
    elif isinstance(store, InMemoryObjectStore):
        _withdraw_memory(store, head, mark)


def _withdraw_sql(store: SqlObjectStore, head: str, mark: bytes) -> None:
    with store.session():
        children = store.query("DELETE FROM object_children WHERE parent_id = :id RETURNING child_id", {"id": head})
        for child in children:
            store.query("UPDATE objects SET ref_count = ref_count - 1 WHERE object_id = :id", {"id": child["child_id"]})
            store.delete(child["child_id"])
        marked = "UPDATE objects SET content = :content, is_available = 1 WHERE object_id = :id"
        store.query(marked, {"content": mark, "id": head})


def _withdraw_memory(store: InMemoryObjectStore, head: str, mark: bytes) -> None:
    with store.lock_store:
        entry = store.store.get(head)
        if entry is None:
            return
        children, entry.child_object_ids = entry.child_object_ids, []
        for child in children:
            store.store[child].ref_count -= 1
            store.delete(child)
        entry.content, entry.is_available = mark, True


def _tree(store: InMemoryObjectStore, head: str) -> list[Any]:
    found, left = [], [head]
    while left:
        entry = store.store.get(left.pop())
        if entry is not None:
            found.append(entry)
            left += entry.child_object_ids
    return found
