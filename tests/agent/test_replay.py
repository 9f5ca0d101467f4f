"""A restart at any moment: the stream is read again, what it lacks is posted, and nothing is posted twice."""

from __future__ import annotations

from collections import Counter
from functools import cache

from hypothesis import given, settings
from hypothesis import strategies as st

from agent.conversation import Conversation
from agent.effects import key
from calls import events as ev
from calls.model import Choice, Mode
from tests.agent.story import CALL, RULES, Story, offered
from tests.agent.test_conversation import REPLY, barges_in, hint


@cache
def answered() -> tuple[ev.Event, ...]:
    """Everything that can happen on an answered call."""
    story = Story().greets()
    story.plays(story.asks("When are you open?", REPLY))
    interrupted = story.asks("And on Sunday?", REPLY)
    barges_in(story, interrupted)
    story.partial("no I meant the address")
    story.happens(
        ev.PlayoutEnded(call_id=CALL, answer_id=interrupted, at_s=story.now_s, heard_text="We are", interrupted=True)
    )
    story.asks("mumble", "What?", confidence=0.1)
    story.plays(story.last_answer)
    story.asks("Do you paint cars?", "Yes.", sources=())
    story.plays(story.last_answer)
    story.utters("Yes please.")
    story.utters("07700 900123")
    story.utters("Yes.")
    story.plays(story.last_answer)
    story.passes(40)
    story.utters("Bye.")
    story.plays(story.last_answer)
    story.ends()
    return tuple(event for event in story.stream if key(event) is None)


@cache
def assisted() -> tuple[ev.Event, ...]:
    story = Story(Mode.ASSIST)
    for n, title in enumerate(["Oil", "Tyres", "Oil", "Hours", "Parking", "Payment"]):
        hint(story, title, f"{n}.md#{n}")
    story.asks("Hello", REPLY, choice=Choice.ANSWER)
    story.ends()
    return tuple(event for event in story.stream if key(event) is None)


def names(stream: list[ev.Event]) -> Counter[str]:
    return Counter(name for event in stream if (name := key(event)) is not None)


class Agent:
    """The agent service with its outbox: commands reach the stream some events after they were issued."""

    def __init__(self, mode: Mode, stream: list[ev.Event]) -> None:
        self.stream = stream
        self.conversation = Conversation(offered(mode), RULES)
        for event in stream:
            self.conversation.apply(event)
        self.read = len(stream)
        self.outbox = self.conversation.owed

    def step(self) -> None:
        while self.read < len(self.stream):
            self.outbox += self.conversation.apply(self.stream[self.read])
            self.read += 1

    def send(self, count: int) -> None:
        self.stream += self.outbox[:count]
        del self.outbox[:count]


@settings(max_examples=60, deadline=None)
@given(
    mode=st.sampled_from([Mode.ANSWER, Mode.ASSIST]),
    crashes=st.lists(st.integers(0, 400), max_size=4),
    sizes=st.lists(st.integers(0, 6), min_size=1, max_size=20),
)
def test_any_crash_leaves_the_same_commands_and_none_twice(mode: Mode, crashes: list[int], sizes: list[int]) -> None:
    inputs = answered() if mode is Mode.ANSWER else assisted()

    def live(crashes: set[int], sizes: list[int]) -> Counter[str]:
        stream: list[ev.Event] = []
        agent = Agent(mode, stream)
        for number, event in enumerate(inputs):
            stream.append(event)
            agent.step()
            if number in crashes:
                agent = Agent(mode, stream)  # what waited in the outbox is gone
            agent.send(sizes[number % len(sizes)])
        agent.send(10_000)
        agent.step()
        assert agent.conversation.owed == []
        return names(stream)

    undisturbed = live(set(), [10_000])
    disturbed = live({crash % len(inputs) for crash in crashes}, sizes)
    assert disturbed == undisturbed
    assert set(disturbed.values()) == {1}


def test_the_same_state_is_read_from_the_stream() -> None:
    first, again = (Conversation(offered(), RULES) for _ in range(2))
    commands = [command for event in answered() for command in first.apply(event)]
    assert commands == [command for event in answered() for command in again.apply(event)]
    assert (first.now_s, first.state) == (again.now_s, again.state)
    assert {type(command).__name__ for command in commands} == {
        "Say", "StopSaying", "CancelResponse", "Answered", "Notice", "HangUp"
    }  # fmt: skip
