"""Copies of Flower's records with some fields more: one record is checked once, however many clients it goes to."""

from collections.abc import Mapping
from typing import Any, TypeVar

from flwr.app import ConfigRecord, RecordDict

Record = TypeVar("Record", ConfigRecord, RecordDict)

DATA = "_data"  # where Flower's typed dictionaries hold what they were given; a test holds it


def with_fields(content: RecordDict, fields: Mapping[str, Any]) -> RecordDict:
    """Return the content with `fields` in each of its ConfigRecords; all else is shared. `fields` are not checked."""
    records: dict[str, Any] = vars(content)[DATA]
    told = {
        key: _holding(record, {**vars(record)[DATA], **fields}) if isinstance(record, ConfigRecord) else record
        for key, record in records.items()
    }
    return _holding(content, told)


def _holding(record: Record, data: dict[str, Any]) -> Record:
    copy = object.__new__(type(record))
    vars(copy).update(vars(record))
    vars(copy)[DATA] = data
    return copy
