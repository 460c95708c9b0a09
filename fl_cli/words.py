"""The events of a run, and the numbers in them, in words for a person; every display of a run speaks through these."""

import shlex
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

Event = Mapping[str, Any]

STOPPED = {"target_accuracy": "the target accuracy was reached", "patience": "the loss did not fall any more"}


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
    """Return a loss or an accuracy with four decimals, or "-" where there is none."""
    if value is None:
        return "-"
    return f"{value:.4f}" if abs(value) < 1000 else f"{value:.3g}"


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


def result(event: Event) -> str:
    """Return the outcome as one line, from the "finished" event."""
    measures = [f"{key} {measure(event[key])}" for key in ("accuracy", "loss") if event.get(key) is not None]
    rounds = f"{event['rounds']} round" + ("s" if event["rounds"] != 1 else "")
    text = f"{', '.join(measures) or 'done'} after {rounds}"
    text += f" in {duration(event['seconds'])}" if event.get("seconds") is not None else ""
    text += f" ({duration(event['fleet_seconds'])} of fleet time)" if event.get("fleet_seconds") else ""
    return text + (f"; {STOPPED[event['stopped']]}" if event.get("stopped") in STOPPED else "")


def leavings(event: Event) -> list[tuple[str, str]]:
    """Return what a finished run left and what to type next, as (word, text) pairs, from the "finished" event."""
    run = _near(event["run_dir"]) if event.get("run_dir") else ""
    pairs = [(word, _near(event[word])) for word in ("model", "plot") if event.get(word)]
    command = f"fl export {_quoted(run)} --format tflite" if event.get("plot") else f"fl plot {_quoted(run)}"
    return [*pairs, ("next", command)] if run else pairs


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
    parts = [f"{key} {measure(event[key])}" for key in ("loss", "accuracy") if event.get(key) is not None]
    parts.append(f"replies {event.get('replies')}/{event.get('cohort')}")
    parts += [f"{word} {event[word]}" for word in ("rejected", "surplus") if event.get(word)]
    parts += [
        spent(event),
        f"up {size(event.get('bytes_up'))}",
        f"down {size(event.get('bytes_down'))}",
    ]
    return f"round {event['round']}: " + "  ".join(parts)


def rejection(event: Event) -> str:
    """Return one line on a rejected reply."""
    phase = "evaluation" if event.get("phase") == "evaluate" else "update"
    where = f"round {event['round']}: the {phase} of client {event.get('client')}"
    return f"{where} was rejected ({event['reason']}): {event['detail']}"


def alike(event: Event, other: Event) -> bool:
    """Say whether both are replies left out in one phase of a round for one reason: a fleet may have hundreds."""
    keys = ("event", "round", "phase", "reason")
    return event["event"] in ("rejected", "dropped") and all(event.get(key) == other.get(key) for key in keys)


def more_left_out(event: Event, more: int) -> str:
    """Return one line on replies that were left out like the one before, whose own lines are not shown."""
    phase = "evaluation" if event.get("phase") == "evaluate" else "update"
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


def engine(event: Event) -> str:
    """Return one line on the way in which simulated clients are trained."""
    return f"simulated clients train by engine={event['engine']} ({event['reason']})"


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
    """Return one line on a damaged checkpoint."""
    return f"the checkpoint of round {event['round']} is damaged and passed over: {event['detail']}"


def restart(event: Event) -> str:
    """Return one line on a ServerApp that is started again."""
    which = f"{event['attempt']} of at most {event['limit']} in a row"
    return f"started again ({which}), to go on from the newest checkpoint: {event['reason']}"


def pause(event: Event) -> str:
    """Return one line on a run that waits, or has waited, for room on its disk."""
    if event["seconds"]:
        return f"waited {duration(event['seconds'])}: {event['reason']}"
    return f"waiting for room on the disk: {event['reason']}"


def waiting(event: Event) -> str:
    """Return one line on the clients that are waited for."""
    fit = f" with {event['where']} (of {event['online']} connected)" if event.get("where") else ""
    return f"waiting for clients: {event['have']} of {event['need']} are there{fit}"


def failure(event: Event) -> str:
    """Return one line on the end of a failed run."""
    where = f" in round {event['round']}" if event.get("round") else ""
    return f"failed{where}: {event['error']}"


def _finished(event: Event) -> str:
    lines = [f"finished: {result(event)}", *(f"{word + ':':<6} {text}" for word, text in leavings(event))]
    return "\n".join(lines)


DESCRIBE: dict[str, Callable[[Event], str]] = {
    "started": _started,
    "waiting": waiting,
    "round": _round,
    "rejected": rejection,
    "dropped": dropping,
    "aside": aside,
    "back": back,
    "repeat": repetition,
    "damaged": damage,
    "restarted": restart,
    "paused": pause,
    "engine": engine,
    "hostile": hostility,
    "finished": _finished,
    "failed": failure,
}
