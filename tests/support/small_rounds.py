"""Rounds of a model of three numbers, with functions for clients: what the round loop does, without training."""

from pathlib import Path

import numpy as np
from flwr.app import Message, MessageType, MetricRecord, RecordDict

import strategies
from fl_common.messages.arrays import decode, encode
from fl_common.settings.schema import Settings
from fl_server.rounds.loop import Rounds
from fl_server.rounds.state import State, restore_strategy
from fl_server.store.runs import Run
from tests.support.in_process_grid import InProcessGrid

MODEL = {"w": np.zeros(3, np.float32)}


def is_train(message):
    return message.metadata.message_type == MessageType.TRAIN


def answer(message, step=1.0, **metrics):
    """The reply of a client that moves every weight by `step`."""
    told = MetricRecord({"num-examples": 10, "loss": 1.0} | metrics)
    content = RecordDict({"metrics": told})
    if is_train(message):
        moved = decode(message.content["arrays"]["w"]) + np.float32(step)
        content["arrays"] = encode({"w": moved})
    return Message(content, reply_to=message)


def steady(step=1.0, **metrics):
    return lambda message: answer(message, step, **metrics)


class Watched(InProcessGrid):
    """Remembers whom it asked to train, round by round."""

    def __init__(self, nodes, *, labels=None, rng=None):
        super().__init__(nodes, rng=rng)
        self.cohorts = {}
        if labels is not None:
            self.labels = labels

    def _push(self, message):
        if is_train(message):
            number = message.content["config"]["server-round"]
            self.cohorts.setdefault(number, []).append(message.metadata.dst_node_id)
        return super()._push(message)


def grid(count=4, *, labels=None, **special):
    """Nodes 1 to `count`; `x3=...` says what node 3 does."""
    nodes = dict.fromkeys(range(1, count + 1), steady()) | {int(name[1:]): node for name, node in special.items()}
    return Watched(nodes, labels=labels)


def run(directory, over, **changes):
    """Run a federation from its beginning; return its last state and its run."""
    settings = Settings(**({"rounds": 1, "min_clients": 1, "keep": 99, "fraction_evaluate": 0.0} | changes))
    made = Run.create(Path(directory), settings)
    return _go(made, settings, over, State(MODEL)), made


def resume(directory, over, **changes):
    """Go on with a run, from its newest checkpoint; return its last state."""
    made = Run.open(Path(directory))
    checkpoint = made.latest()
    state = State.of(checkpoint)
    return _go(made, made.settings.model_copy(update=changes), over, state, checkpoint.strategy)


def _go(made, settings, over, state, kept=None):
    strategy = strategies.make(settings)
    if kept is not None:
        restore_strategy(strategy, kept)
    with made.lock():
        return Rounds(over, strategy, settings, made).run(state)[0]


def events(made, kind):
    return [event for event in made.events() if event["event"] == kind]
