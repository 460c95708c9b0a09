"""Takes a reply back out of Flower's object store, in the SuperLink's process, so that who waits for it learns it."""

from flwr.supercore.object_store import ObjectStore
from flwr.supercore.object_store.in_memory_object_store import InMemoryObjectStore
from flwr.supercore.object_store.sql_object_store import SqlObjectStore

from fl_server.pulling import WITHDRAWN


def withdraw(store: ObjectStore, head: str, mark: bytes = WITHDRAWN) -> None:
    """Drop the objects of a reply, and leave a mark in the place of its head: whoever waits for it learns that."""
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
