"""The history of a run: what each client did, how often and why it was rejected, and who is set aside for a while.

It is kept with each checkpoint, so that a resumed run knows its clients; RUN/clients.json is its public face.
"""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

LONGEST = 64  # rounds that a client is set aside at most


@dataclass
class Entry:
    """One client. `failures` are counted since its last good reply, by phase; `times` how often it was set aside since.

    `asked` counts the times it was asked to train, last in `last_round`; `rounds` its good replies to that.
    `aside_until_round` is the last round that it is left out of.
    """

    client: str = ""
    asked: int = 0
    rounds: int = 0
    rejected: dict[str, int] = field(default_factory=dict)
    last_round: int = 0
    failures: dict[str, int] = field(default_factory=dict)
    times: int = 0
    aside_until_round: int = 0


class ClientHistory:
    """Entries by node id. With `everyone` false only those that fail are entered: for large simulated populations."""

    def __init__(self, entries: Mapping[int, Entry] | None = None, *, everyone: bool = True) -> None:
        self.entries = dict(entries or {})
        self.changed = bool(self.entries)
        self._everyone = everyone
        self._out = {node for node, entry in self.entries.items() if entry.aside_until_round}
        self._trained: set[int] = set()  # nodes without an entry whose update was good

    @classmethod
    def of(cls, notes: Mapping[str, Any], *, everyone: bool = True) -> "ClientHistory":
        """Return the history that `notes` returned."""
        return cls({int(node): Entry(**entry) for node, entry in notes.items()}, everyone=everyone)

    def notes(self) -> dict[str, dict[str, Any]]:
        """Return the entries as JSON holds them."""
        return {str(node): asdict(entry) for node, entry in self.entries.items()}

    def turn(self, node: int) -> tuple[int, int]:
        """Return the last round that a node was asked to train in, 0 for never, and how often it was asked."""
        entry = self.entries.get(node)
        return (entry.last_round, entry.asked) if entry is not None else (0, 0)

    def asked(self, nodes: Iterable[int], round_number: int) -> None:
        """Take down who is asked to train."""
        for node in nodes if self._everyone else ():
            entry = self._entry(node)
            entry.last_round = round_number
            entry.asked += 1

    def good(self, node: int, phase: str) -> None:
        """Take down a good reply: what went wrong before is made up for."""
        if not self._everyone and node not in self.entries:
            if phase == "train":
                self._trained.add(node)
            return
        entry = self._entry(node)
        entry.rounds += phase == "train"
        entry.failures.pop(phase, None)
        if not entry.failures:
            entry.times = 0

    def rejected(self, node: int, phase: str, reason: str) -> None:
        """Take down a rejected reply."""
        entry = self._entry(node)
        entry.rejected[reason] = entry.rejected.get(reason, 0) + 1
        entry.failures[phase] = entry.failures.get(phase, 0) + 1

    def failures(self, node: int, phase: str) -> int:
        """Return how many replies of a phase were rejected in a row, up to now."""
        return self.entries[node].failures.get(phase, 0) if node in self.entries else 0

    def never_trained(self) -> dict[int, dict[str, int]]:
        """Return the nodes whose replies were rejected and of whose updates none was good, with the reasons."""
        return {
            node: dict(entry.rejected) for node, entry in self.entries.items() if entry.rejected and not entry.rounds
        }

    def name(self, clients: Mapping[int, str]) -> None:
        """Take down the ids of the clients' keys."""
        for node, client in clients.items():
            if node in self.entries:
                self.entries[node].client = client

    def set_aside(self, node: int, after_round: int, rounds: int) -> int:
        """Leave a client out of the next `rounds` rounds, of twice as many each further time; return the last of them.

        One failure after it is back sets it aside again; one good reply makes all good.
        """
        entry = self._entry(node)
        entry.aside_until_round = after_round + min(LONGEST, rounds * 2 ** min(entry.times, 10))
        entry.times += 1
        self._out.add(node)
        return entry.aside_until_round

    def aside(self, round_number: int) -> dict[int, int]:
        """Return who is left out of a round, and until which, soonest back first."""
        until = sorted((self.entries[node].aside_until_round, node) for node in self._out)
        return {node: last for last, node in until if last >= round_number}

    def back(self, round_number: int) -> list[int]:
        """Let those whose time is over come back, and return them."""
        found = sorted(node for node in self._out if self.entries[node].aside_until_round < round_number)
        for node in found:
            self._entry(node).aside_until_round = 0
        self._out -= set(found)
        return found

    def _entry(self, node: int) -> Entry:
        self.changed = True
        return self.entries.setdefault(node, Entry(rounds=int(node in self._trained)))
