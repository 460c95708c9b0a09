"""What a run that is not over waits for, from its events: for whoever looks at it while nothing comes."""

from collections.abc import Iterable

from fl_server.store.log.events_log import Event

ELSEWHERE = ("differs", "warning", "engine", "hostile", "damaged")  # events that end no wait


def after(event: Event, before: str = "") -> str:
    """Return what a run waits for after an event: "waiting for 2 clients; 0 are there", or "" where for nothing."""
    if event["event"] in ELSEWHERE:
        return before
    have, need = event.get("have"), event.get("need")
    if event["event"] != "waiting" or not isinstance(have, int) or not isinstance(need, int) or have >= need:
        return ""
    fit = f" with {event['where']}" if event.get("where") else ""
    clients = "client" if need == 1 else "clients"
    return f"waiting for {need} {clients}{fit}; {have} {'is' if have == 1 else 'are'} there"


def of_run(course: Iterable[Event]) -> str:
    """Return what a run waits for after all its events."""
    text = ""
    for event in course:
        text = after(event, text)
    return text
