"""The wait for clients before a round: it has a time limit, and says what it waits for."""

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from flwr.serverapp import Grid

from fl_common import selectors
from fl_common.errors import RoundError
from fl_common.selectors import Labels
from fl_common.settings import Settings
from fl_server.clock import Clock
from fl_server.cohort import quorum
from fl_server.leases import Leases

POLL_SECONDS = 0.1

LabelsOf = Callable[[], Mapping[int, Labels]]


def nobody() -> Mapping[int, Labels]:
    """Return the labels of a federation in which no client has any."""
    return {}


def wait_for_clients(
    grid: Grid,
    leases: Leases,
    settings: Settings,
    *,
    announce: Callable[[Mapping[str, Any]], object],
    clock: Clock | None = None,
    labels: LabelsOf = nobody,
) -> Leases:
    """Return renewed leases once `min_clients`, or as many as the quorum, hold one. Raises RoundError in time.

    Only clients whose labels fit `where` count, and hold a lease.
    """
    clock = clock or Clock()
    need = max(settings.min_clients, quorum(settings, settings.clients_per_round))
    started, said = clock.now(), (-1, -1)
    while True:
        online = _sized(grid.get_node_ids())
        renewed = leases.renew(fitting(online, settings.where, labels))
        have = len(renewed.slots)
        if have >= need:
            return renewed
        waited = clock.now() - started
        if waited > settings.wait_seconds:
            raise RoundError(_in_vain(settings, need, have, len(online)))
        if (have, len(online)) != said:
            where = {"where": settings.where, "online": len(online)} if settings.where else {}
            announce({"event": "waiting", "have": have, "need": need, "seconds": round(waited, 3), **where})
            said = (have, len(online))
        clock.sleep(POLL_SECONDS)


def fitting(nodes: Sequence[int], where: str, labels: LabelsOf) -> Sequence[int]:
    """Return the nodes whose labels fit `where`; all of them where it is empty."""
    if not where:
        return nodes
    fits, known = selectors.parse(where), labels()
    return [node for node in nodes if fits(known.get(node, {}))]


def _in_vain(settings: Settings, need: int, have: int, online: int) -> str:
    if settings.where and online > have:
        return (
            f"waited {settings.wait_seconds:g} s for {need} clients with where={settings.where!r}; "
            f"{have} of the {online} that are connected fit. `fl clients` shows their labels. "
            "Start more with these labels, change where, or lower min_clients and the quorum, or raise wait_seconds."
        )
    return (
        f"waited {settings.wait_seconds:g} s for {need} clients; {have} came. "
        "Start more with `fl client --server HOST:PORT`, or lower min_clients (and the quorum), or raise wait_seconds."
    )


def _sized(nodes: Any) -> Sequence[int]:
    return nodes if isinstance(nodes, Collection) else list(nodes)  # type: ignore[return-value]
