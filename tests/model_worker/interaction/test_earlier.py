"""A call that another worker takes over: what the model remembers of it, and what is still given out."""

from __future__ import annotations

import pytest

pytest.importorskip("torch", reason="the interaction extra (torch, transformers) is not installed: scripts/setup test")

from collections.abc import Sequence
from itertools import product
from typing import Any

import torch

from calls.audio import CHUNK_S, Chunk
from calls.bus import Message
from calls.events import (
    AudioChunk,
    CancelResponse,
    Decided,
    Event,
    Partial,
    ResponseClosed,
    ResponseDelta,
    ResponseOpened,
    Uttered,
)
from calls.model import Choice, Mode, Utterance
from model_worker.interaction.config import TEST, InteractionConfig
from model_worker.interaction.earlier import recall
from model_worker.interaction.instruction import words_of
from model_worker.interaction.make import make_tokenizer
from model_worker.interaction.model import CallStream, Interaction
from model_worker.interaction.tokens import EMOTIONS
from model_worker.recall import FRESH_S, Recollection, recollect
from model_worker.stream import Fate, Past, PastResponse
from tests.model_worker.interaction.calls import SLOW, SLOW_TIERS, chunks, listen, model, told

COUNT = 36
HEARD = chunks(4, COUNT)
DIGITS = "0123456789"
TOKENS, TOKENIZER = TEST.tokens, make_tokenizer()


def plain(config: InteractionConfig = SLOW, emotions: Sequence[str] = EMOTIONS) -> Interaction:
    """A model that says as a trained one does an emotion first, and then something, in one spelling only."""
    served = model(config)
    digits = [words_of(digit, TOKENIZER)[0] for digit in DIGITS]
    for pair in product(DIGITS, repeat=2):
        assert len(words_of("".join(pair), TOKENIZER)) == 2
    forbidden = served._serving._decoder._forbidden
    forbidden.fill_(float("-inf"))
    forbidden[0, [getattr(config.tokens, name) for name in emotions]] = 0.0
    forbidden[1, digits] = 0.0
    forbidden[1, config.tokens.text_end] = -4.0
    return served


def laid(stream: str, events: Sequence[Event]) -> list[Message]:
    return [Message(stream, f"{n + 1}-0", event) for n, event in enumerate(events)]  # type: ignore[arg-type]


def left(heard: Sequence[Chunk]) -> list[Message]:
    """Audio that is still on the bus."""
    said = [AudioChunk(call_id="c1", participant_id=c.participant_id, index=c.index, pcm=c.pcm) for c in heard]
    return laid("audio:c1", said)


def after(story: Sequence[Event]) -> Recollection:
    return recollect(laid("call:c1", story), [], all_again=True)


def summary(events: Sequence[Event]) -> dict[str, Any]:
    """What of the events must be the same again. Each response is opened once, then written, then closed once."""
    decided: list[tuple[Any, ...]] = []
    responses: dict[str, list[Any]] = {}
    for event in events:
        match event:
            case Decided():
                decided.append((event.chunk, event.choice, event.score, event.stopped))
            case ResponseOpened():
                assert event.response_id not in responses
                responses[event.response_id] = [event.chunk, event.emotion, 0, "", None]
            case ResponseDelta():
                one = responses[event.response_id]
                assert (event.seq, one[4]) == (one[2], None)
                one[2], one[3] = event.seq + 1, one[3] + event.text
            case ResponseClosed():
                one = responses[event.response_id]
                assert one[4] is None
                assert event.text == one[3]
                one[2], one[4] = 0, event.cancelled  # how it was cut into pieces does not matter
    written = [event.utterance for event in events if isinstance(event, Uttered)]
    assert len({one.id for one in written}) == len(written)
    return {"decided": decided, "responses": responses, "written": written}


@pytest.mark.parametrize("config", [SLOW, SLOW_TIERS], ids=["one tier", "two tiers"])
@pytest.mark.parametrize("mode", list(Mode))
def test_a_call_goes_on_as_if_it_had_not_been_taken_over(config: InteractionConfig, mode: Mode) -> None:
    """Wherever its worker dies: while it speaks, between a Decision and its words, in silence."""
    emotions = ("normal",) if mode is Mode.TRANSCRIBE else EMOTIONS  # of a transcript none is kept
    whole = listen(plain(config, emotions), HEARD, mode)
    expected = summary(whole)
    assert expected["responses"] or expected["written"]
    ends = [n for n, event in enumerate(whole) if not isinstance(event, Decided | Partial)]
    torn = 0
    for end in [*ends[:: max(1, len(ends) // 4)], len(whole) // 2]:
        story = whole[: end + 1]
        if not any(isinstance(event, Decided) for event in story):
            continue
        known = after(story)
        past = known.past(left(HEARD[: max(dict(known.past().decided).values()) + 4]))
        torn += any(response.fate is Fate.TORN for response in past.responses)
        second = plain(config, emotions)
        stream = second.open("c1", told(mode), lambda event: None, past)
        assert stream.going_on == {response_id for response_id, _ in known.torn_responses()}
        second.close(stream)
        assert summary([*story, *listen(second, HEARD, mode, past)]) == expected
    assert torn or mode is Mode.TRANSCRIBE


def test_what_policy_ended_ends_at_the_same_place_again() -> None:
    served = plain()
    _, first = in_mid_answer(listen(served, HEARD))

    def before(stream: CallStream, index: int) -> None:
        if index == first.chunk + 2:
            served.cancel(stream, first.response_id)

    stopped = listen(served, HEARD, before=before)
    [place] = [event.chunk for event in stopped if isinstance(event, Decided) and event.stopped]
    assert place == first.chunk + 2
    end = next(n for n, event in enumerate(stopped) if isinstance(event, Decided) and event.chunk == place + 6)
    known = after(stopped[: end + 1])
    again = listen(plain(), HEARD, past=known.past(left(HEARD[: place + 8])))
    assert summary([*stopped[: end + 1], *again]) == summary(stopped)


def in_mid_answer(whole: Sequence[Event]) -> tuple[list[Event], ResponseOpened]:
    """A story that ends within a response that goes on for some Chunks more."""
    for n, event in enumerate(whole):
        if isinstance(event, ResponseOpened):
            rest = [one for one in whole[n:] if isinstance(one, Decided | ResponseDelta | ResponseClosed)]
            closed = next(m for m, one in enumerate(rest) if isinstance(one, ResponseClosed))
            if sum(isinstance(one, Decided) for one in rest[:closed]) >= 2:
                return list(whole[: n + 2]), event
    raise AssertionError("no response is long enough")


def test_a_response_that_policy_cancelled_meanwhile_is_not_written_on() -> None:
    story, opened = in_mid_answer(listen(plain(), HEARD))
    cancelled = CancelResponse(call_id="c1", response_id=opened.response_id, reason="interrupted")
    known = after([*story, cancelled])
    [until] = dict(known.past().decided).values()
    past = known.past(left(HEARD[: until + 3]))
    served = plain()
    stream = served.open("c1", told(), lambda event: None, past)
    assert stream.going_on == frozenset()  # the worker closes it
    served.close(stream)
    again = listen(served, HEARD, past=past)
    assert not [event for event in again if getattr(event, "response_id", "") == opened.response_id]
    assert [event.chunk for event in again if isinstance(event, Decided) and event.stopped] == [until + 1]


def test_nobody_waits_for_a_response_whose_worker_is_long_gone() -> None:
    story, opened = in_mid_answer(listen(plain(), HEARD))
    for told_so_far in (story, [event for event in story if not isinstance(event, ResponseOpened | ResponseDelta)]):
        known = after(told_so_far)
        [until] = dict(known.past().decided).values()
        audio = left(chunks(4, until + 2 + round(FRESH_S / CHUNK_S)))
        again = listen(plain(), HEARD, past=known.past(audio))
        assert not [event for event in again if getattr(event, "response_id", "") == opened.response_id]
        stopped = [event.chunk for event in again if isinstance(event, Decided) and event.stopped]
        assert stopped == ([until + 1] if told_so_far is story else [])


# --- what the model is told -------------------------------------------------------------------------------------


def test_of_what_is_not_heard_again_there_are_the_words() -> None:
    past = Past(
        decided=(("caller", 20), ("human_agent", 30)),
        responses=(
            PastResponse("assist-caller-3", "caller", 3, "happy", "We open", 2, Fate.CUT),
            PastResponse("assist-human_agent-5", "human_agent", 5, "normal", "At six.", 2, Fate.FINISHED),
            PastResponse("assist-caller-12", "caller", 12, "sad", "No.", 1, Fate.FINISHED),
            PastResponse("assist-caller-19", "caller", 19, "urgent", "Say", 1, Fate.TORN),
        ),
        responded=(("caller", 3), ("human_agent", 5), ("caller", 12), ("caller", 14), ("caller", 19), ("caller", 20)),
        again=(("caller", 10), ("human_agent", 10)),
        fresh=(("caller", 16), ("human_agent", 16)),
    )
    caller = recall(past, Mode.ASSIST, "caller", TOKENS, TOKENIZER)
    assert caller.said == [[TOKENS.happy, *words_of("We open", TOKENIZER)]]
    assert caller.known.until == 20
    assert caller.known.responses == {
        12: [TOKENS.sad, *words_of("No.", TOKENIZER), TOKENS.text_end],
        14: [TOKENS.text_end],  # nothing was said
        19: [TOKENS.urgent, *words_of("Say", TOKENIZER)],
        20: [],  # it was about to be said
    }
    assert {chunk for chunk, one in caller.retold.items() if one.muted} == {12, 14}
    other = recall(past, Mode.ASSIST, "human_agent", TOKENS, TOKENIZER)
    assert other.said == [[TOKENS.normal, *words_of("At six.", TOKENIZER)]]
    assert other.known.responses == {}


def test_without_audio_there_are_only_words() -> None:
    past = Past(
        decided=(("caller", 20),),
        responses=(PastResponse("answer-caller-19", "caller", 19, "normal", "Say", 1, Fate.TORN),),
        responded=(("caller", 19),),
    )
    earlier = recall(past, Mode.ANSWER, "caller", TOKENS, TOKENIZER)
    assert earlier.said == [[TOKENS.normal, *words_of("Say", TOKENIZER)]]
    assert (earlier.known.responses, earlier.retold) == ({}, {})


def test_a_transcript_that_is_not_written_is_never_too_late() -> None:
    past = Past(
        utterances=(Utterance("transcribe-caller-11", "caller", 0.0, 4.8, "Hello."),),
        decided=(("caller", 100),),
        responded=(("caller", 8), ("caller", 11), ("caller", 40)),
        again=(("caller", 0),),
        fresh=(("caller", 99),),
    )
    earlier = recall(past, Mode.TRANSCRIBE, "caller", TOKENS, TOKENIZER)
    assert earlier.said == []
    assert earlier.known.responses == {
        8: [TOKENS.text_end],
        11: [TOKENS.normal, *words_of("Hello.", TOKENIZER)],
        40: [],
    }
    assert [chunk for chunk, one in earlier.retold.items() if not one.muted] == [40]
    assert earlier.written_until_s == 4.8


def test_each_response_is_remembered_once() -> None:
    """As many words after a takeover as without one, some of them said before what is heard again."""
    served = plain()
    events: list[Event] = []

    def remembered(past: Past, heard: Sequence[Chunk]) -> torch.Tensor:
        stream = served.open("c1", told(), events.append, past)
        for chunk in heard:
            served.step([(stream, chunk)])
            while served.respond():
                pass
        ear = stream.sides["caller"].ear
        memory = served._serving._decoder.memory
        times = memory.times[ear.slot, SLOW.memory.prefix : SLOW.memory.prefix + SLOW.memory.text].clone()
        count = torch.tensor([ear.voice.texts])
        served.close(stream)
        return torch.cat([count, (times >= 0).sum()[None]])

    count, _ = remembered(Past(), HEARD).tolist()
    story = events[:]
    whole = sum(len(event.text) for event in story if isinstance(event, ResponseClosed))
    again, _ = remembered(after(story[:-1]).past(left(HEARD[12:])), HEARD[12:]).tolist()
    ends = sum(isinstance(event, ResponseOpened) for event in story)
    assert any(isinstance(event, ResponseOpened) and event.chunk < 12 for event in story)
    assert abs(again - count) <= ends < whole
    assert [event for event in story if isinstance(event, Decided) and event.choice is Choice.ANSWER]
