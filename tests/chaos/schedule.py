"""The faults of a chaos run: what happens to whom after which round. The same seed gives the same schedule."""

import random
from dataclasses import dataclass

CLIENTS = 8
ROUNDS = 40
QUIET_BEFORE, QUIET_AFTER = 6, 38  # memory is measured after round 5; the last rounds show that all is well again

# How often each kind of fault happens in a run.
COUNTS = {
    "kill client": 3,
    "stop client": 2,
    "kill SuperLink": 2,
    "stop SuperLink": 1,
    "kill ServerApp": 2,
    "stop ServerApp": 1,
    "kill server": 2,
    "stop server": 1,
    "cut connection": 2,
    "delay connection": 1,
    "throttle connection": 1,
    "clock jump": 2,
    "hostile: NaN": 1,
    "hostile: wrong shapes": 1,
    "hostile: garbage bytes": 1,
    "hostile: huge examples": 1,
    "full disk": 1,
}


@dataclass(frozen=True)
class Fault:
    """One fault: `after` seconds after the commit of `round`, for `seconds`; `client` for kinds that have one."""

    round: int
    kind: str
    client: int
    seconds: float
    after: float


def schedule(seed: int, *, leave_out: frozenset[str] = frozenset()) -> list[Fault]:
    """Return the faults in the order of their rounds: each kind as often as COUNTS says, the rest drawn from `seed`."""
    rng = random.Random(seed)
    kinds = [kind for kind, count in COUNTS.items() for _ in range(count)]
    rng.shuffle(kinds)
    rounds = sorted(rng.choices(range(QUIET_BEFORE, QUIET_AFTER), k=len(kinds)))
    drawn = [
        Fault(number, kind, rng.randrange(CLIENTS), round(rng.uniform(1.0, 3.0), 2), round(rng.uniform(0.0, 0.4), 2))
        for number, kind in zip(rounds, kinds, strict=True)
    ]
    return [fault for fault in drawn if fault.kind not in leave_out]
