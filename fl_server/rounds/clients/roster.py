"""The roster of a run: who is there, who holds which slot, who may be asked in a round, and who is set aside."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from flwr.serverapp import Grid

from fl_common.settings.schema import Settings
from fl_server.rounds.clients.client_history import ClientHistory
from fl_server.rounds.clients.data_agreement import Agreement
from fl_server.rounds.clients.leases import Leases, Numbered
from fl_server.rounds.clients.node_labels import Registered
from fl_server.rounds.clients.waiting import wait_for_clients
from fl_server.rounds.clock import Clock
from fl_server.rounds.phase import Phase
from fl_server.rounds.stragglers import Straggler, Stragglers

Announce = Callable[[Mapping[str, Any]], object]


class Roster:
    """The clients of one run. `leases`, `clients` and `schema` are what a checkpoint kept of them."""

    def __init__(
        self,
        grid: Grid,
        settings: Settings,
        clock: Clock,
        announce: Announce,
        *,
        leases: Leases,
        clients: Mapping[str, Any],
        schema: str = "",
    ) -> None:
        self._grid, self._settings, self._clock, self._announce = grid, settings, clock, announce
        self._registered = registered = Registered(grid, clock)
        self.agreement = Agreement(grid, registered.schemas, announce, identities=registered.identities, settled=schema)
        self.leases = leases
        numbered = isinstance(grid.get_node_ids(), range | Numbered)
        self.history = ClientHistory.of(clients, everyone=not numbered or settings.selection == "fair")
        self.stragglers = Stragglers(grid, clock, announce)
        self._killed = registered.killed()  # before this run, or before it was resumed

    def gather(self, round_number: int) -> None:
        """Wait for clients, renew their leases, and welcome back those whose time aside is over."""
        self.leases = wait_for_clients(
            self._grid,
            self.leases,
            self._settings,
            announce=self._announce,
            clock=self._clock,
            labels=self._registered.labels,
            slots=self._registered.slots,
            agreement=self.agreement,
        )
        self.agreement.settle()
        self._tell_killed()
        for node in self.history.back(round_number):
            self._announce({"event": "back", "round": round_number, **self._who(node)})

    def _tell_killed(self) -> None:
        """Tell of clients that were killed since the last round, as they said when they came back."""
        found = self._registered.killed()
        for node, (_, why) in sorted(each for each in found.items() if self._killed.get(each[0]) != each[1]):
            client = self.leases.slots.get(node)
            name = f"node {node}" if client is None else f"client {client}"
            self._announce({"event": "warning", "text": f"{name} was killed, and is back; {why}"})
        self._killed = found

    def eligible(self, round_number: int, wanted: int, needed: int, failed: Iterable[int] = ()) -> list[int]:
        """Return the leased nodes that may be asked, in slot order.

        Left out, as long as others are enough, are those that failed in this round, are set aside, or are still at work
        on an earlier message. The last fill up to `wanted`, those set aside to `needed` only.
        """
        nodes = self.leases.nodes()
        failed, aside, busy = set(failed), self.history.aside(round_number), self.stragglers.busy()
        if not (failed or aside or busy):
            return nodes
        chosen = [node for node in nodes if node not in failed and node not in aside and node not in busy]
        fit = [node for node in nodes if node in busy and node not in failed and node not in aside]
        _fill(chosen, fit, wanted)
        _fill(
            chosen,
            [node for node in nodes if node in failed and node not in aside],
            max(self._settings.min_clients, needed),
        )
        _fill(chosen, [node for node in aside if node in self.leases.slots], needed)
        return sorted(chosen, key=self.leases.slots.__getitem__)

    def review(self, phase: Phase, attempt: int, asked_at: float, until: float) -> None:
        """Draw the consequences of a phase: who is still expected to answer, and who has failed too often."""
        for identity, node in phase.unanswered.items():
            straggler = Straggler(
                node, self.leases.slots.get(node), phase.name, phase.round, attempt, phase.given_up, asked_at, until
            )
            self.stragglers.add(identity, straggler, came=identity in phase.came)
        self.stragglers.drop()
        for node in sorted(phase.failed):
            self._judge(node, phase)

    def notes(self) -> dict[str, Any]:
        """Return what the history knows, with the ids of the clients' keys, where a registry knows them."""
        if self.history.changed:
            self.history.name(self._registered.identities())
        return self.history.notes()

    def absent(self) -> list[dict[str, Any]]:
        """Return the clients that never took part in training although they were asked, and what went wrong."""
        known = {**self.leases.away, **self.leases.slots}
        never = [(known.get(node), node, reasons) for node, reasons in self.history.never_trained().items()]
        never.sort(key=lambda each: (each[0] is None, each[0], each[1]))
        return [{"client": client, "node": str(node), "reasons": reasons} for client, node, reasons in never]

    def never_joined(self) -> int:
        """Return how many of the run's partitions no client ever held."""
        return max(0, self._settings.partitions - self.leases.highest)

    def unused(self) -> int:
        """Return how many partitions of a shared data set no client holds now; 0 where all clients have their own."""
        missing = max(0, self.leases.partitions - len(self.leases.slots))
        return missing if missing and not self.leases.slots.keys() <= set(self._registered.with_own_data()) else 0

    def _judge(self, node: int, phase: Phase) -> None:
        failures = self.history.failures(node, phase.name)
        if not 0 < self._settings.aside_after <= failures:
            return
        until = self.history.set_aside(node, phase.round, self._settings.aside_rounds)
        self._announce(
            {
                "event": "aside",
                "round": phase.round,
                **self._who(node),
                "failures": failures,
                "until_round": until,
                "reasons": dict(self.history.entries[node].rejected),
            }
        )

    def _who(self, node: int) -> dict[str, Any]:
        return {"client": self.leases.slots.get(node), "node": str(node)}


def _fill(chosen: list[int], others: list[int], size: int) -> None:
    """Add as many others as are missing to `size`."""
    chosen += others[: max(0, size - len(chosen))]
