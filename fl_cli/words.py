"""The events of a run, and the numbers in them, in words for a person; every display of a run speaks through these."""

import shlex
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

Event = Mapping[str, Any]

MOST_METRICS = 6  # in a line of words
MENDED = {
    "events.jsonl": "It is rebuilt, with the rounds of the checkpoints",
    "seal.json": "It is made anew, without a signature",
}
SHOWN = 10  # clients that are named one by one

STOPPED = {
    "target_accuracy": "the target was reached",
    "patience": "the metric that counts did not get better any more",
}


def size(count: float | None) -> str:
    """Return a number of bytes as words: 950 B, 14.2 kB, 3.1 MB."""
    if count is None:
        return "-"
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" or count >= 100 else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


def duration(seconds: float | None) -> str:
    """Return seconds as words: 0.21 s, 12.3 s, 4 min 05 s, 2 h 10 min."""
    if seconds is None:
        return "-"
    if seconds < 60:
        return f"{seconds:.2f} s" if seconds < 9.995 else f"{seconds:.1f} s"
    minutes = round(seconds) // 60
    return f"{minutes} min {round(seconds) % 60:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def measure(value: float | None) -> str:
    """Return a metric in six characters or so: 0.9443, 12.34, 2.1e-05, 1.23e+05; "-" where there is none."""
    if value is None:
        return "-"
    size = abs(value)
    value = value or 0.0  # no -0.0
    if size and size < 1e-3:
        return f"{value:.1e}"
    return f"{value:.4f}" if size < 10 else f"{value:.2f}" if size < 1000 else f"{value:.3g}"


def metrics(event: Event) -> dict[str, float]:
    """Return the metrics of a round: the loss, the accuracy where there is one, then all others that are compiled."""
    headlines = {key: event[key] for key in ("loss", "accuracy") if event.get(key) is not None}
    others = event.get("metrics") or {}
    return headlines | {name: value for name, value in others.items() if isinstance(value, int | float)}


def spent(event: Event) -> str:
    """Return how long a round took: here, and in the time of a simulated fleet where there is one."""
    here = duration(event.get("seconds"))
    fleet = event.get("fleet")
    return f"{duration(fleet['seconds'])} of fleet time, {here} here" if fleet and fleet["clock"] else here


def heading(event: Event) -> str:
    """Return what is learned, as one line, from the "started" event."""
    parts = [str(event[key]) for key in ("task", "strategy") if event.get(key)]
    if event.get("parameters") is not None:
        parts.append(f"{event['parameters']:,} parameters ({size(event.get('bytes'))})")
    if event.get("seed") is not None:
        parts.append(f"seed {event['seed']}")
    return ", ".join(parts)


def finish(event: Event) -> str:
    """Return how a run finished, in one or three words."""
    return "finished, with gaps" if event.get("gaps") else "finished"


def result(event: Event, whole: float | None = None) -> str:
    """Return the outcome as one line, from the "finished" event. whole: the seconds of the whole command, if known."""
    measures = [f"{key} {measure(event[key])}" for key in ("accuracy", "loss") if event.get(key) is not None]
    rounds = f"{event['rounds']} round" + ("s" if event["rounds"] != 1 else "")
    text = f"{', '.join(measures) or 'done'} after {rounds}"
    seconds = event.get("seconds") if whole is None else whole
    text += f" in {duration(seconds)}" if seconds is not None else ""
    text += f" ({duration(event['fleet_seconds'])} of fleet time)" if event.get("fleet_seconds") else ""
    return text + (f"; {STOPPED[event['stopped']]}" if event.get("stopped") in STOPPED else "")


def shortfalls(event: Event) -> list[str]:
    """Return who never took part in a finished run, and which rounds had too few: a line each, none where all did."""
    lines = [_absence(each) for each in event.get("absent") or ()][:SHOWN]
    more = len(event.get("absent") or ()) - len(lines)
    lines += [f"{more} more clients never took part"] if more else []
    if missing := event.get("never_joined"):
        lines.append(f"{missing} client{'s' if missing > 1 else ''} that the data were split for never joined")
    if gaps := event.get("gaps"):
        lines.append(f"{gaps} of {event['rounds']} rounds had the updates of less than half of the clients they asked")
    return lines


def _absence(client: Event) -> str:
    reasons = ", ".join(f"{reason} {number}" for reason, number in client["reasons"].items())
    return f"client {client.get('client')} never took part: its replies were rejected ({reasons})"


def leavings(event: Event) -> list[tuple[str, str]]:
    """Return what a finished run left and what to type next, as (word, text) pairs, from the "finished" event."""
    run = _near(event["run_dir"]) if event.get("run_dir") else ""
    pairs = [(word, _near(event[word])) for word in ("model", "plot") if event.get(word)]
    pairs += [("plot", f"not drawn: {event['plot_error']}")] if event.get("plot_error") else []
    if event.get("model_error"):
        pairs.insert(0, ("model", f"not written ({event['model_error']}); its weights: fl export --format weights"))
    if event.get("custom_objects"):
        pairs.insert(1, ("load", loading(event)))
    command = f"fl export {_quoted(run)} --format tflite" if event.get("plot") else f"fl plot {_quoted(run)}"
    return [*pairs, ("next", command)] if run else pairs


def loading(event: Event) -> str:
    """Return the line of Python that loads a model with objects of the task's own, from the "finished" event."""
    named = ", ".join(f'"{name}": {name}' for name in event["custom_objects"])
    return f'keras.saving.load_model("{_near(event["model"])}", custom_objects={{{named}}})'


def _near(path: str) -> str:
    """Return a path relative to the working directory where it lies in it."""
    here = Path.cwd()
    return str(Path(path).relative_to(here)) if Path(path).is_relative_to(here) else str(path)


def _quoted(path: str) -> str:
    return shlex.quote(path)


def _started(event: Event) -> str:
    resumed = event.get("resumed_from")
    verb = f"resumed after round {resumed}" if resumed is not None else "started"
    return f"run {event.get('run', '')} {verb}: {heading(event)}"


def _round(event: Event) -> str:
    found = metrics(event)
    parts = [f"{name} {measure(value)}" for name, value in list(found.items())[:MOST_METRICS]]
    parts += [f"+{len(found) - MOST_METRICS} metrics"] if len(found) > MOST_METRICS else []
    parts.append(f"replies {event.get('replies')}/{event.get('cohort')}")
    parts += [f"{word} {event[word]}" for word in ("rejected", "left", "surplus") if event.get(word)]
    parts += [unused(event)] if event.get("unused") else []
    parts += [
        spent(event),
        f"up {size(event.get('bytes_up'))}",
        f"down {size(event.get('bytes_down'))}",
    ]
    return f"round {event['round']}: " + "  ".join(parts)


def unused(event: Event) -> str:
    """Return how much of a shared data set a round went without, from its event."""
    return f"{event['unused']} of {event['partitions']} partitions unused (no client holds them)"


def rejection(event: Event) -> str:
    """Return one line on a rejected reply."""
    phase = "evaluation" if event.get("phase") == "evaluate" else "update"
    where = f"round {event['round']}: the {phase} of client {event.get('client')}"
    if event["reason"] == "left":
        return f"round {event['round']}: client {event.get('client')} left before its {phase} was there"
    return f"{where} was rejected ({event['reason']}): {event['detail']}"


def alike(event: Event, other: Event) -> bool:
    """Say whether both are replies left out in one phase of a round for one reason: a fleet may have hundreds."""
    keys = ("event", "round", "phase", "reason")
    return event["event"] in ("rejected", "dropped") and all(event.get(key) == other.get(key) for key in keys)


def more_left_out(event: Event, more: int) -> str:
    """Return one line on replies that were left out like the one before, whose own lines are not shown."""
    phase = "evaluation" if event.get("phase") == "evaluate" else "update"
    if event.get("reason") == "left":
        return f"round {event['round']}: {more} more left before their {phase}s were there"
    many = f"{more} more {phase}s were" if more > 1 else f"1 more {phase} was"
    return f"round {event['round']}: {many} {event['event']} ({event['reason']})"


def repetition(event: Event) -> str:
    """Return one line on a repeated round."""
    return f"round {event['round']} is repeated (attempt {event['attempt']}): {event['reason']}"


def dropping(event: Event) -> str:
    """Return one line on a reply that came too late."""
    why = {"surplus": "others were enough", "late": "after the deadline"}.get(event["reason"], "it was repeated")
    what = f"the reply of client {event.get('client')} to round {event['round']} came after {event['seconds']:.1f} s"
    return f"{what} and was dropped: {why}"


def aside(event: Event) -> str:
    """Return one line on a client that is set aside."""
    reasons = ", ".join(f"{reason} {number}" for reason, number in event["reasons"].items())
    failed = f"client {event.get('client')} failed {event['failures']} times in a row ({reasons})"
    return f"{failed} and is left out until round {event['until_round']}"


def back(event: Event) -> str:
    """Return one line on a client that may be asked again."""
    return f"client {event.get('client')} may be asked again from round {event['round']}"


def differing(event: Event) -> str:
    """Return one line on a client that calls its data otherwise than the others."""
    who = f"client {event['id']}" if event.get("id") else f"the client of node {event['node']}"
    return f"{who} is left out, for its data are not called as the others': {event['detail']}"


def engine(event: Event) -> str:
    """Return one line on the way in which simulated clients are trained."""
    return f"simulated clients train by engine={event['engine']} ({event['reason']})"


def warning(event: Event) -> str:
    """Return one line on what will not be as somebody may expect."""
    return f"warning: {event['text']}"


def hostility(event: Event) -> str:
    """Return one line on the hostile clients of a simulation."""
    parts = []
    if event["hostile"]:
        scale = f" (scale {event['scale']:g})" if event.get("scale") else ""
        parts.append(
            f"{event['hostile']} of {event['clients']} simulated clients are hostile: {event['attack']}{scale}"
        )
    if event["label_noise"]:
        parts.append(f"{event['label_noise']:.0%} of every client's training labels are wrong")
    return "; ".join(parts)


def damage(event: Event) -> str:
    """Return one line on a damaged file of a run, or a damaged checkpoint."""
    if "file" in event:
        return f"{event['detail'].rstrip('.')}. {MENDED.get(event['file'], 'What the run began with is put back')}."
    return f"the checkpoint of round {event['round']} is damaged and passed over: {event['detail']}"


def restart(event: Event) -> str:
    """Return one line on a ServerApp that is started again."""
    which = f" ({event['attempt']} of at most {event['limit']} in a row)" if event["attempt"] else ""
    return f"started again{which}, to go on from the newest checkpoint: {event['reason']}"


def pause(event: Event) -> str:
    """Return one line on a run that waits, or has waited, for room on its disk."""
    if event["seconds"]:
        return f"waited {duration(event['seconds'])}: {event['reason']}"
    return f"waiting for room on the disk: {event['reason']}"


def waiting(event: Event) -> str:
    """Return one line on the clients that are waited for."""
    fit = f" with {event['where']} (of {event['online']} connected)" if event.get("where") else ""
    return f"waiting for clients: {event['have']} of {event['need']} are there{fit}"


def replied(event: Event) -> str:
    """Return one line on the replies that a round has so far."""
    what = "evaluated" if event.get("phase") == "evaluate" else "replied"
    return f"round {event['round']}: {event['replies']}/{event['cohort']} {what}"


def failure(event: Event) -> str:
    """Return one line on the end of a failed run."""
    where = f" in round {event['round']}" if event.get("round") else ""
    return f"failed{where}: {event['error']}"


def short_failure(event: Event) -> str:
    """Return that a run failed, without why: whoever shows a run to its end says it as the error that it ends with."""
    return f"failed in round {event['round']}" if event.get("round") else "failed"


def is_repeated(rejection: Event, failure: Event) -> bool:
    """Say whether the end of a failed run tells what a rejected reply did: every client made the same mistake."""
    detail = str(rejection.get("detail") or "").rstrip(".")
    return bool(detail) and failure["event"] == "failed" and detail in str(failure.get("error"))


def finished(event: Event, whole: float | None = None) -> str:
    """Return the outcome and what is left, line by line. whole: as `result` takes it."""
    lines = [f"{finish(event)}: {result(event, whole)}", *shortfalls(event)]
    lines += [f"{word + ':':<6} {text}" for word, text in leavings(event)]
    return "\n".join(lines)


DESCRIBE: dict[str, Callable[[Event], str]] = {
    "started": _started,
    "waiting": waiting,
    "round": _round,
    "rejected": rejection,
    "dropped": dropping,
    "aside": aside,
    "back": back,
    "differs": differing,
    "repeat": repetition,
    "damaged": damage,
    "restarted": restart,
    "paused": pause,
    "engine": engine,
    "warning": warning,
    "hostile": hostility,
    "finished": finished,
    "failed": failure,
}


def described(event: Event) -> str:
    """Return an event in words; "" for one that has none. One in a damaged log may lack what its kind has."""
    describe = DESCRIBE.get(event["event"])
    try:
        return describe(event) if describe is not None else ""
    except (KeyError, TypeError, ValueError, AttributeError):
        return f"{event['event']}: this event is damaged"
