"""The wait for clients before a round: it has a time limit, and says what it waits for."""

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from flwr.serverapp import Grid

from fl_common.errors import RoundError
from fl_common.settings import label_selectors
from fl_common.settings.label_selectors import Labels
from fl_common.settings.schema import Settings
from fl_server.rounds.clients.data_agreement import Agreement
from fl_server.rounds.clients.leases import NOBODY, Leases, Wanted
from fl_server.rounds.clock import Clock
from fl_server.rounds.cohort import quorum

POLL_SECONDS = 0.1
NOT_YET = (-1, -1)
DIFFER_SECONDS = 5.0  # for others to come, where those that are there do not mean the same

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
    slots: Wanted = lambda: NOBODY,
    agreement: Agreement | None = None,
) -> Leases:
    """Return renewed leases once `min_clients`, or as many as the quorum, hold one. Raises RoundError in time.

    A wait is announced when it begins, when the number changes, and when it is over.

    Only clients whose labels fit `where`, and whose data are called as those of most, count and hold a lease. Raises
    DataError where for that they are too few.
    """
    clock = clock or Clock()
    need = max(settings.min_clients, quorum(settings, settings.clients_per_round))
    started, said, differ_since = clock.now(), NOT_YET, None
    while True:
        online = _sized(grid.get_node_ids())
        fit = fitting(online, settings.where, labels)
        renewed = leases.renew(agreement.agreeing(fit) if agreement else fit, slots)
        have = len(renewed.slots)
        waited = clock.now() - started
        where = {"where": settings.where, "online": len(online)} if settings.where else {}
        event = {"event": "waiting", "have": have, "need": need, "seconds": round(waited, 3), **where}
        if have >= need:
            if said != NOT_YET:
                announce(event)
            return renewed
        differ_since = (differ_since or clock.now()) if agreement and agreement.odd and len(fit) >= need else None
        if agreement and differ_since is not None and clock.now() - differ_since > DIFFER_SECONDS:
            raise agreement.error()
        if 0 < settings.wait_seconds < waited:
            raise RoundError(_in_vain(settings, need, have, len(online)))
        if (have, len(online)) != said:
            announce(event)
            said = (have, len(online))
        clock.sleep(POLL_SECONDS)


def fitting(nodes: Sequence[int], where: str, labels: LabelsOf) -> Sequence[int]:
    """Return the nodes whose labels fit `where`; all of them where it is empty."""
    if not where:
        return nodes
    fits, known = label_selectors.parse(where), labels()
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
