"""A phase of a round: bad replies are counted and told, good ones pass, and a missed quorum is raised at the end."""

import gc
import weakref

import numpy as np
import pytest
from flwr.app import Error, Message, MessageType, RecordDict

from fl_server.rounds.clients.client_history import ClientHistory
from fl_server.rounds.clients.leases import Leases
from fl_server.rounds.cohort import Cohort
from fl_server.rounds.exchange import Answer
from fl_server.rounds.phase import DETAIL_LENGTH, Phase, QuorumMissed
from fl_server.rounds.reply_limits import Limits
from tests.support.in_process_grid import lost
from tests.support.strategy_messages import ask, failed, reply

MODEL = {"w": np.ones((2, 2), np.float32)}
LEASES = Leases().renew([10, 20, 30])


class Answers:
    """Answers that are there already, in the form of a Stream."""

    def __init__(self, answers):
        self.left, self.asked, self.over, self.more = iter(answers), 0, False, True
        self.open, self.came = {}, set()

    def __next__(self):
        self.more = False
        answer = next(self.left)
        self.more = True
        self.asked += 1
        return answer

    @property
    def expected(self):
        return 99 if self.more else 0

    def ask(self, messages, *, enough):
        raise AssertionError("there is nobody else to ask")

    def close(self):
        return self.open


class InPlace(Phase):
    """A phase that wants every reply there is."""

    def replies(self, answers, *, quorum):
        return super().replies(Answers(answers), Cohort([], 99, quorum))


def phase(said, name="train", history=None, **limits):
    sent = MODEL if name == "train" else None
    limits = Limits(**{"examples": 1000} | limits)
    return InPlace(name, 4, LEASES, sent=sent, limits=limits, history=history or ClientHistory(), announce=said.append)


def answer(message, node=10):
    return Answer(node, message, 0.1)


def test_good_replies_pass_and_are_counted():
    current = phase(said := [])
    good = [answer(reply(MODEL, 5, loss=0.5), 10), answer(reply(MODEL, 6, loss=0.7), 20)]
    assert list(current.replies(good, quorum=2)) == [each.reply for each in good]
    assert (current.cohort, current.good, current.rejected, said) == (2, 2, 0, [])
    assert current.bytes_up == sum(len(each.reply.content["arrays"]["w"].data) for each in good)


def test_a_bad_reply_is_told_with_client_node_phase_reason_and_detail():
    current = phase(said := [])
    bad = reply({"w": np.full((2, 2), np.inf, np.float32)}, 5)
    assert list(current.replies([answer(bad, 20)], quorum=0)) == []
    (event,) = said
    assert event == {
        "event": "rejected",
        "round": 4,
        "client": 1,
        "node": "20",
        "phase": "train",
        "reason": "not-finite",
        "detail": "w holds a NaN or an infinity",
    }
    assert (current.rejected, current.failed) == (1, {20})
    assert current.last_rejection == "Client 1: w holds a NaN or an infinity"


def test_no_reply_counts_as_late():
    current = phase(said := [])
    assert list(current.replies([answer(None, 30)], quorum=0)) == []
    assert (said[0]["reason"], said[0]["client"]) == ("late", 2)


def test_an_error_from_the_superlink_is_told_of_the_client_that_was_asked():
    current = phase(said := [])
    list(current.replies([Answer(30, lost(ask(node=30)), 0.1, lost=True)], quorum=0))
    assert (said[0]["client"], said[0]["reason"], said[0]["detail"]) == (2, "lost", "Node unavailable.")


def test_an_error_without_a_reason_still_says_something():
    current = phase(said := [])
    list(current.replies([answer(Message(Error(code=9), reply_to=ask()))], quorum=0))
    assert "9" in said[0]["detail"]


def test_a_long_story_is_cut():
    current = phase(said := [])
    list(current.replies([answer(failed("x" * 10_000))], quorum=0))
    assert len(said[0]["detail"]) == DETAIL_LENGTH


def test_a_missed_quorum_is_raised_only_after_the_last_reply():
    current = phase([])
    replies = current.replies([answer(reply(MODEL, 5), 10), answer(failed("no"), 20)], quorum=2)
    next(replies)
    with pytest.raises(QuorumMissed, match="1 good replies of 2 asked; the quorum is 2"):
        next(replies)


def test_an_evaluation_may_have_no_examples_and_needs_no_arrays():
    current = phase([], "evaluate")
    none = reply(None, 0, kind=MessageType.EVALUATE)
    assert list(current.replies([answer(none)], quorum=0)) == [none]


def test_the_spread_of_a_metric_is_over_the_clients_that_reported_it():
    current = phase([])
    told = [reply(MODEL, 5, loss=float(value), seconds=1.0, **extra) for value, extra in ((1, {}), (3, {"mae": 2.0}))]
    list(current.replies([answer(each) for each in told], quorum=0))
    assert current.spread() == {"loss": [1.0, 1.5, 2.0, 2.5, 3.0], "mae": [2.0] * 5}
    assert current.quartiles("seconds") == [1.0] * 5
    assert current.quartiles("nothing") == []


def test_nobodys_spread_is_empty():
    assert phase([]).spread() == {}


def test_a_reply_is_let_go_before_the_next_one_is_pulled():
    alive = []

    def one_by_one():
        for node in (10, 20, 30):
            assert sum(ref() is not None for ref in alive) == 0
            message = reply(MODEL, 5)
            alive.append(weakref.ref(message.content["arrays"]))
            yield Answer(node, message, 0.0)
            del message

    gc.disable()
    try:
        for message in phase([]).replies(one_by_one(), quorum=0):
            del message
    finally:
        gc.enable()
    assert len(alive) == 3


@pytest.mark.parametrize("content", [RecordDict(), RecordDict({"arrays": reply(MODEL).content["arrays"]})])
def test_a_reply_without_metrics_is_empty(content):
    current = phase(said := [])
    list(current.replies([answer(Message(content, reply_to=ask()))], quorum=0))
    assert said[0]["reason"] == "empty"
