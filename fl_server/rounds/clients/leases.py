"""Leases: which client holds which partition. The server decides, so that clients need no numbers of their own.

A lease is a slot, from 0. A node that leaves frees its slot for the next newcomer, so a restarted client takes the
place of the one it replaces; a node that comes back takes its own slot again, if nobody took it meanwhile. Cohorts are
drawn over slots, which makes them independent of Flower's random node ids.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from types import MappingProxyType

NOBODY: Mapping[int, int] = MappingProxyType({})
MOST_SLOTS = 1_000_000

Wanted = Callable[[], Mapping[int, int]]


class Numbered(list[int]):
    """Those who are there of a population that is numbered from 1: each has the slot of its number, always."""


@dataclass(frozen=True)
class Leases:
    """`slots` maps node id -> slot. `limit` is the fixed number of partitions; 0 grows with the clients."""

    limit: int = 0
    slots: Mapping[int, int] = field(default_factory=lambda: NOBODY)
    highest: int = 0
    known: Sequence[int] | None = None  # the nodes that these leases were made for, where they are numbered
    away: Mapping[int, int] = field(default_factory=lambda: NOBODY)  # free slots of those that left

    def renew(self, nodes: Iterable[int], wanted: Wanted = lambda: NOBODY) -> "Leases":
        """Return the leases with those of absent nodes ended and the lowest free slots given to new nodes.

        With a limit, nodes beyond it get none and wait as spares. `wanted`: slots of new nodes, where free.
        """
        if nodes == self.known:  # a population that is a range stays the same range: nothing to look at
            return self
        if isinstance(nodes, Numbered):
            slots = {node: node - 1 for node in nodes if node <= (self.limit or node)}
            return replace(self, slots=MappingProxyType(slots), highest=max([self.highest, *nodes]), known=nodes)
        present = set(nodes)
        before = {**self.away, **self.slots}
        kept = {node: slot for node, slot in before.items() if node in present}
        if self.limit:
            kept = {node: slot for node, slot in kept.items() if slot < self.limit}
        taken = set(kept.values())
        free = (slot for slot in range(self.limit or len(present)) if slot not in taken)
        if present - kept.keys():
            for node, slot in sorted(wanted().items()):
                if node in present - kept.keys() and slot not in taken and slot < (self.limit or MOST_SLOTS):
                    kept[node] = slot
                    taken.add(slot)
        kept |= dict(zip(sorted(present - kept.keys()), free, strict=False))
        taken = set(kept.values())
        return replace(
            self,
            slots=MappingProxyType(kept),
            highest=max([self.highest, *(s + 1 for s in kept.values())]),
            known=nodes if isinstance(nodes, range) else None,
            away=MappingProxyType({node: slot for node, slot in before.items() if slot not in taken}),
        )

    @property
    def partitions(self) -> int:
        """Into how many parts a shared data set is split."""
        return self.limit or self.highest

    def nodes(self) -> list[int]:
        """Return the nodes that hold a lease, in the order of their slots."""
        return list(self._in_order)

    def notes(self) -> dict[str, int]:
        """Return who holds which slot, for a checkpoint; nothing for numbered nodes, whose order says it."""
        return {} if self.known is not None else {str(node): slot for node, slot in {**self.away, **self.slots}.items()}

    @classmethod
    def of(cls, notes: Mapping[str, int], *, limit: int, highest: int) -> "Leases":
        """Return the leases of a checkpoint: the nodes that it names are away until they are seen."""
        return cls(limit, highest=highest, away=MappingProxyType({int(node): slot for node, slot in notes.items()}))

    @cached_property
    def _in_order(self) -> list[int]:
        return sorted(self.slots, key=self.slots.__getitem__)
