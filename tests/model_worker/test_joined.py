"""Two models joined: which text goes to whom. The merging by scripted models, and once by the weights that we ship."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from agent.hints import Hints
from agent.policy import Rules
from calls.audio import CHUNK_BYTES, CHUNK_SAMPLES, Chunk
from calls.events import Decided, Event, Notice, Partial, ResponseClosed, ResponseDelta, ResponseOpened, Uttered
from calls.model import Answer, Choice, Hint, Instruction, Mode, Participant, Role, Utterance
from calls.settings import Settings
from model_worker.chosen import load_to_decide_again
from model_worker.claims import VOICED
from model_worker.echo import EchoModel, EchoStream
from model_worker.evaluation import audio
from model_worker.joined import Joined
from model_worker.sounds import RESPOND
from model_worker.stream import Emit, Past, Stream, silent
from soundflow.synth import SYNTHESISED
from tests.model_worker.conftest import Models

PEOPLE = (Participant("caller", Role.CALLER), Participant("human_agent", Role.HUMAN_AGENT))
NOISES = Path(__file__).resolve().parents[1] / "data" / "noises"


class Words(EchoModel):
    """Decides the caller's Chunks as `choices` says, else `silent`; says `words` of a Chunk before its Decision."""

    name = "words"
    transcribes = True

    def __init__(self, choices: Mapping[int, Choice], words: Mapping[int, Event]) -> None:
        self.choices = choices
        self.words = words
        self.log: list[str] = []

    def step(self, batch: Sequence[tuple[Stream, Chunk]]) -> None:
        for stream, chunk in batch:
            assert isinstance(stream, EchoStream)
            mine = chunk.participant_id == "caller"
            if mine and (event := self.words.get(chunk.index)) is not None:
                stream.emit(event)
            choice = self.choices.get(chunk.index, Choice.SILENT) if mine else Choice.SILENT
            stream.emit(
                Decided(
                    call_id="c",
                    participant_id=chunk.participant_id,
                    chunk=chunk.index,
                    choice=choice,
                    score=0.5,
                )
            )

    def hear_answer(self, stream: Stream, answer: Answer) -> None:
        self.log.append(f"heard {answer.id}")

    def cancel(self, stream: Stream, response_id: str) -> None:
        self.log.append(f"cancel {response_id}")

    def close(self, stream: Stream) -> None:
        self.log.append("close")


class Sounds(EchoModel):
    """Writes `texts` of Chunks."""

    name = "sounds"

    def __init__(self, texts: Mapping[int, str], breaks: bool = False) -> None:
        self.texts = texts
        self.breaks = breaks
        self.told: list[Instruction] = []
        self.heard: list[tuple[str, int]] = []

    def open(self, call_id: str, instruction: Instruction, emit: Emit, past: Past) -> EchoStream:
        self.told.append(instruction)
        return super().open(call_id, instruction, emit, past)

    def step(self, batch: Sequence[tuple[Stream, Chunk]]) -> None:
        if self.breaks:
            raise RuntimeError("broken")
        for stream, chunk in batch:
            assert isinstance(stream, EchoStream)
            self.heard.append((chunk.participant_id, chunk.index))
            text = self.texts.get(chunk.index)
            if text is None:
                stream.emit(silent(chunk))
                continue
            name = f"assist-{chunk.participant_id}-{chunk.index}"
            opened = ResponseOpened(
                call_id="c",
                response_id=name,
                choice=Choice.ASSIST,
                participant_id=chunk.participant_id,
                chunk=chunk.index,
                score=0.9,
                trigger_s=0.0,
                heard="",
                confidence=1.0,
            )
            stream.emit(opened)
            stream.emit(ResponseDelta(call_id="c", response_id=name, seq=0, text=text))
            stream.emit(ResponseClosed(call_id="c", response_id=name, text=text))


@dataclass
class Call:
    events: list[Event]
    words: Words
    sounds: Sounds

    def choices(self) -> list[Choice]:
        return [
            event.choice for event in self.events if isinstance(event, Decided) and event.participant_id == "caller"
        ]

    def texts(self) -> list[str]:
        return [event.text for event in self.events if isinstance(event, ResponseClosed)]

    def notices(self) -> list[Notice]:
        return [event for event in self.events if isinstance(event, Notice)]


def call(
    texts: Mapping[int, str],
    mode: Mode = Mode.ASSIST,
    choices: Mapping[int, Choice] | None = None,
    words: Mapping[int, Event] | None = None,
    count: int = 30,
    breaks: bool = False,
) -> Call:
    """Both participants are quiet but for what is said here."""
    heard = Call([], Words(choices or {}, words or {}), Sounds(texts, breaks))
    model = Joined(heard.words, heard.sounds, patient=True)
    opened = model.open("c", Instruction(mode, "Help.", PEOPLE), heard.events.append, Past())
    for index in range(count):
        model.step([(opened, Chunk("c", person.id, index, bytes(CHUNK_BYTES))) for person in PEOPLE])
        assert not model.respond()
    answer = Answer("a1", 0.0, "", "", False, None)
    model.hear_answer(opened, answer)
    model.cancel(opened, "hint-1")
    model.close(opened)
    model.shut_down()
    return heard


def test_a_sound_in_the_background_becomes_a_hint_and_one_decision() -> None:
    heard = call({5: "a baby crying"})
    assert heard.texts() == ["A baby crying in the background: offer to wait or to call back."]
    (opened,) = [event for event in heard.events if isinstance(event, ResponseOpened)]
    assert (opened.title, opened.sources, opened.heard) == ("A baby crying", ("sound: a baby crying",), "")
    assert (opened.trigger_s, opened.score, opened.participant_id) == (2.4, 0.9, "caller")
    assert [index for index, choice in enumerate(heard.choices()) if choice is not Choice.SILENT] == [opened.chunk]
    assert heard.choices()[opened.chunk] is Choice.ASSIST
    assert not heard.notices()


def test_every_chunk_is_decided_once_and_only_callers_are_listened_to() -> None:
    heard = call({5: "a baby crying"})
    decided = [(event.participant_id, event.chunk) for event in heard.events if isinstance(event, Decided)]
    assert decided == [(person.id, index) for index in range(30) for person in PEOPLE]
    assert heard.sounds.heard == [("caller", index) for index in range(30)]
    (told,) = heard.sounds.told
    assert (told.mode, told.participants, told.cards) == (Mode.ASSIST, PEOPLE[:1], ())


@pytest.mark.parametrize("text", ["seven", "somebody is speaking", "a dog barking", "a sneeze", ""])
def test_what_names_no_sound_that_is_told_of_is_nobodys_business(text: str) -> None:
    heard = call({5: text})
    assert heard.texts() == []
    assert set(heard.choices()) == {Choice.SILENT}


def test_words_win_over_a_sound_claimed_in_them() -> None:
    said = Partial(call_id="c", utterance_id="u", participant_id="caller", start_s=2.0, end_s=2.8, text="Well,")
    heard = call({5: "glass breaking"}, words={7: said})
    assert heard.texts() == []
    assert said in heard.events
    finished = Uttered(call_id="c", utterance=Utterance("u", "caller", 2.0, 2.8, "Well, yes."))
    assert call({5: "glass breaking"}, words={6: finished}).texts() == []
    other = Uttered(call_id="c", utterance=Utterance("u", "human_agent", 2.0, 2.8, "Well, yes."))
    assert len(call({5: "glass breaking"}, words={6: other}).texts()) == 1


def test_what_the_first_model_proposes_stands_and_the_sound_comes_after_it() -> None:
    plain = call({5: "a siren close by"})
    (chunk,) = [index for index, choice in enumerate(plain.choices()) if choice is Choice.ASSIST]
    heard = call({5: "a siren close by"}, choices={chunk: Choice.ASSIST})
    decided = [event for event in heard.events if isinstance(event, Decided) and event.choice is Choice.ASSIST]
    assert [(event.chunk, event.score) for event in decided] == [(chunk, 0.5), (chunk + 1, 0.9)]


@pytest.mark.parametrize("mode", [Mode.ANSWER, Mode.TRANSCRIBE])
def test_off_assist_only_danger_is_noted_and_no_decision_changes(mode: Mode) -> None:
    heard = call({5: "a smoke alarm", 12: "a machine beeping"}, mode=mode)
    assert [(notice.kind, notice.text, notice.at_s) for notice in heard.notices()] == [
        ("sound", "A smoke alarm in the background", 2.4)
    ]
    assert heard.texts() == []
    assert set(heard.choices()) == {Choice.SILENT}
    assert heard.sounds.told[0].mode is Mode.ASSIST


def test_a_sound_that_goes_on_is_one_hint_and_the_agents_policy_shows_it_once() -> None:
    heard = call(dict.fromkeys(range(5, 100, 12), "a baby crying") | {50: "a saw"}, count=160)
    assert [text.partition(" in the ")[0] for text in heard.texts()] == ["A baby crying", "A saw"]
    again = call({5: "a baby crying", 100: "a baby crying"}, count=160)
    assert len(again.texts()) == 2, "it has begun anew"
    assert len(shown(heard.events)) == 2
    assert [hint.source for hint in shown(again.events)] == ["sound: a baby crying"]


def test_the_agents_rules_apply_to_every_sound() -> None:
    told = [sound for sound in RESPOND if sound.label not in VOICED]
    heard = call({5 + 8 * number: sound.name for number, sound in enumerate(told)}, count=160)
    assert len(heard.texts()) == len(told)
    assert len(shown(heard.events, Rules("", hints_per_minute=100))) == len(told)
    assert len(shown(heard.events, Rules("", hints_per_minute=4))) < len(told)
    assert shown(heard.events, Rules("", hint_min_score=0.95)) == []


def shown(events: Sequence[Event], rules: Rules | None = None) -> list[Hint]:
    """What the agent makes of them."""
    hints, now_s, found = Hints(rules or Rules("")), 0.0, []
    for event in events:
        if isinstance(event, Decided):
            now_s = (event.chunk + 1) * 0.4
        elif isinstance(event, ResponseOpened):
            hints.open(event, now_s)
        elif isinstance(event, ResponseClosed) and (hint := hints.close(event, now_s)) is not None:
            found.append(hint)
    return found


def test_the_call_goes_on_when_the_second_model_breaks() -> None:
    heard = call({5: "a baby crying"}, breaks=True, choices={3: Choice.TRANSCRIBE})
    assert heard.choices()[3] is Choice.TRANSCRIBE
    assert len(heard.choices()) == 30
    assert [notice.kind for notice in heard.notices()] == ["sounds"]
    assert heard.words.log == ["heard a1", "cancel hint-1", "close"]


@pytest.fixture(scope="module")
def shipped(models: Models) -> Iterator[Joined]:
    models("whisper-base")
    model = load_to_decide_again(Settings(model="echo+interaction:small", worker_threads=1), os.environ)
    assert isinstance(model, Joined)
    yield model
    model.shut_down()


def test_the_shipped_ear_tells_of_an_alarm_and_of_no_sneeze_and_no_clock(shipped: Joined) -> None:
    assert shipped.name == "echo+interaction:small"
    rng = np.random.default_rng(3)
    alarm = np.rint(SYNTHESISED["smoke_alarm"](rng, 4.0) * 12_000).astype(np.int16)
    quiet = (audio.room(1.2, rng), audio.room(2.4, rng))
    assert of_audio(shipped, np.concatenate([quiet[0], alarm, quiet[1]])) == ["sound: a smoke alarm"]
    for name in ("1-26143-A.ogg", "1-62849-A.ogg"):
        assert of_audio(shipped, np.concatenate(list(audio.decode(NOISES / name)))) == []


def of_audio(model: Joined, pcm: audio.Pcm) -> list[str]:
    """The sources of what it says of 16 kHz audio."""
    events: list[Event] = []
    opened = model.open("c", Instruction(Mode.ASSIST, "", PEOPLE), events.append, Past())
    for index in range(len(pcm) // CHUNK_SAMPLES):
        part = pcm[index * CHUNK_SAMPLES : (index + 1) * CHUNK_SAMPLES]
        model.step([(opened, Chunk("c", "caller", index, part.tobytes()))])
    model.close(opened)
    return [source for event in events if isinstance(event, ResponseOpened) for source in event.sources]
