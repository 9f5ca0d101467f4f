"""The whole cascade on real speech: the recorded garage call, recorded and synthesised questions, hold music.

The model is patient here: every step waits for its words, so that a busy machine decides nothing differently.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest

from agent.knowledge import GARAGE, Knowledge
from calls.audio import CHUNK_BYTES, CHUNK_S, Chunk
from calls.events import Decided, Event, Notice, Partial, ResponseClosed, ResponseOpened, Uttered
from calls.model import Answer, Choice, Instruction, Mode, Participant, Role, Utterance
from model_worker.cascade.call import CallStream
from model_worker.cascade.knowledge import Libraries
from model_worker.cascade.load import load_parts
from model_worker.cascade.model import Cascade
from model_worker.cascade.retrieval import Array
from model_worker.cascade.side import Side
from model_worker.catalogue import Catalogue
from model_worker.engine import Engine
from model_worker.stream import Past, PastResponse, Stream
from offhook.demo import FOLDER
from offhook.phone.wav import load
from tests.model_worker.conftest import Models

PEOPLE = {"caller": Role.CALLER, "human_agent": Role.HUMAN_AGENT}
MUSIC = Path("/usr/share/asterisk/moh")
Tracks = dict[str, bytes]


@pytest.fixture(scope="module")
def cascade(models: Models) -> Iterator[Cascade]:
    for name in ("silero-vad", "moonshine-tiny", "whisper-base", "smart-turn", "minilm"):
        models(name)
    model = Cascade(load_parts(Catalogue()), patient=True)
    model.parts.libraries.get(Knowledge(GARAGE).cards()).result()
    yield model
    model.shut_down()


class Line:
    """One call on an engine that the test steps itself."""

    def __init__(self, model: Cascade, mode: Mode, people: list[str], call_id: str = "c", past: Past | None = None):
        self.engine = Engine(model)
        self.events: list[Event] = []
        participants = tuple(Participant(name, PEOPLE[name]) for name in people)
        instruction = Instruction(mode, "Help.", participants, Knowledge(GARAGE).cards())
        self.call_id = call_id
        self.stream: Stream = self.engine.open(call_id, instruction, past or Past(), self.events.append)

    def hear(self, tracks: Tracks, begin: int = 0, end: int | None = None) -> Line:
        chunks = max(-(-len(pcm) // CHUNK_BYTES) for pcm in tracks.values())
        for index in range(begin, min(chunks, end or chunks)):
            for name, pcm in tracks.items():
                part = pcm[index * CHUNK_BYTES : (index + 1) * CHUNK_BYTES]
                padded = part + bytes(CHUNK_BYTES - len(part))
                self.engine.hear(self.stream, Chunk(self.call_id, name, index, padded), 1e12)
            self.engine.step()
        return self

    def close(self) -> Line:
        closed = threading.Event()
        self.engine.close(self.stream, closed.set)
        self.engine.step()
        assert closed.wait(60)
        return self

    def utterances(self, revision: int = 0) -> list[Utterance]:
        return [e.utterance for e in self.events if isinstance(e, Uttered) and e.utterance.revision == revision]

    def opened(self) -> list[ResponseOpened]:
        return [event for event in self.events if isinstance(event, ResponseOpened)]

    def choices(self, participant: str) -> list[tuple[int, Choice]]:
        return [(e.chunk, e.choice) for e in self.events if isinstance(e, Decided) and e.participant_id == participant]


def garage(seconds: float) -> Tracks:
    names = {"caller": "caller.wav", "human_agent": "agent.wav"}
    size = int(seconds / CHUNK_S) * CHUNK_BYTES
    return {role: load(FOLDER / "garage-call" / name)[:size] for role, name in names.items()}


def question(name: str, before_s: float = 1.0, after_s: float = 2.0) -> bytes:
    return bytes(int(before_s * 32_000)) + load(FOLDER / "caller" / f"{name}.wav") + bytes(int(after_s * 32_000))


def plain(text: str) -> set[str]:
    return set(re.findall(r"[a-z']+", text.lower()))


def test_the_garage_call(cascade: Cascade) -> None:
    tracks = garage(27.2)
    line = Line(cascade, Mode.ASSIST, list(tracks)).hear(tracks).close()
    chunks = len(tracks["caller"]) // CHUNK_BYTES
    for participant in tracks:
        assert [chunk for chunk, _ in line.choices(participant)] == list(range(chunks)), (
            "one Decision a Chunk, in order"
        )
    said = " ".join(u.text for u in line.utterances() if u.participant_id == "caller")
    assert {"name", "literally", "oil", "light", "service"} <= plain(said)
    hints = [event for event in line.opened() if event.choice is Choice.ASSIST]
    assert "Oil light still on after an oil change" in [hint.title for hint in hints]
    assert len({hint.sources for hint in hints}) == len(hints), "no card twice"
    texts = {e.response_id: e.text for e in line.events if isinstance(e, ResponseClosed)}
    assert all(texts[hint.response_id] for hint in hints)
    assert all(hint.trigger_s <= (hint.chunk + 1) * CHUNK_S for hint in hints)
    partials = [e for e in line.events if isinstance(e, Partial)]
    assert len(partials) > 20
    finished = {u.id: u for u in line.utterances()}
    for event in partials:
        if event.text and event.utterance_id in finished:
            assert event.start_s == finished[event.utterance_id].start_s
    for u in finished.values():
        assert u.words
        assert u.start_s <= u.words[0].start_s
        assert u.words[-1].end_s <= u.end_s + 0.01
    assert Choice.ANSWER not in {choice for _, choice in line.choices("caller")}


def test_finals_come_as_a_better_revision_of_the_same_utterance(cascade: Cascade) -> None:
    cascade.parts.refiner.wait(60)  # its backlog is bounded: what comes too fast is left to the job after the call
    line = Line(cascade, Mode.TRANSCRIBE, ["caller"]).hear({"caller": question("1-hours")}).close()
    live = line.utterances()
    cascade.parts.refiner.wait(60)
    better = line.utterances(revision=1)
    assert [u.id for u in better] == [u.id for u in live]
    assert better[0].words
    assert abs(better[0].words[0].start_s - live[0].start_s) < 0.5
    assert abs(better[0].words[-1].end_s - live[0].end_s) < 0.5


@pytest.mark.parametrize(
    ("name", "source"),
    [
        ("1-hours", "hours-and-place.md#"),
        ("2-oil-price", "prices.md#price-of-an-oil-change"),
        ("4-loan-car", "booking.md#loan-car"),
    ],
)
def test_questions_are_answered_from_their_card(cascade: Cascade, name: str, source: str) -> None:
    line = Line(cascade, Mode.ANSWER, ["caller"]).hear({"caller": question(name)})
    (opened,) = line.opened()
    assert opened.sources[0].startswith(source)
    assert opened.heard
    (closed,) = [e for e in line.events if isinstance(e, ResponseClosed)]
    cards = {card.source: card.text for card in Knowledge(GARAGE).cards()}
    assert closed.text in cards[opened.sources[0]], "read from the card, word for word"
    kinds = [choice for _, choice in line.choices("caller")]
    assert kinds.count(Choice.ANSWER) == 1
    utterance = next(i for i, e in enumerate(line.events) if isinstance(e, Uttered))
    assert utterance < line.events.index(opened), "the words are known before the response to them"


def test_what_the_cards_do_not_hold_has_no_source_and_no_text(cascade: Cascade) -> None:
    line = Line(cascade, Mode.ANSWER, ["caller"]).hear({"caller": question("5-goodbye")})
    (opened,) = line.opened()
    assert opened.sources == ()
    assert [e.text for e in line.events if isinstance(e, ResponseClosed)] == [""]


def noise(seconds: float, level: float) -> bytes:
    rng = np.random.default_rng(1)
    return (rng.normal(0, level * 32768, int(seconds * 16_000)).clip(-32768, 32767)).astype("<i2").tobytes()


@pytest.mark.parametrize("kind", ["silence", "line noise", "loud noise", "hum"])
def test_noise_gives_no_words(cascade: Cascade, kind: str) -> None:
    pcm = {
        "silence": bytes(32_000 * 6),
        "line noise": noise(6, 0.003),
        "loud noise": noise(6, 0.2),
        "hum": (np.sin(np.arange(96_000) * 2 * np.pi * 50 / 16_000) * 8000).astype("<i2").tobytes(),
    }[kind]
    line = Line(cascade, Mode.ANSWER, ["caller"]).hear({"caller": pcm}).close()
    assert line.utterances() == []
    assert line.opened() == []
    assert Choice.ANSWER not in {choice for _, choice in line.choices("caller")}


@pytest.mark.skipif(not MUSIC.is_dir(), reason="no hold music here: apt install asterisk-moh-opsound-wav")
def test_hold_music_gives_no_words(cascade: Cascade) -> None:
    for path in sorted(MUSIC.glob("*.wav")):
        pcm = load(path)[: 32_000 * 20]
        line = Line(cascade, Mode.ANSWER, ["caller"]).hear({"caller": pcm}).close()
        assert [u.text for u in line.utterances()] == [], path.name
        assert line.opened() == [], path.name


def test_calls_in_one_batch_are_decided_like_each_alone(cascade: Cascade) -> None:
    names = ("1-hours", "2-oil-price", "4-loan-car")
    alone = [Line(cascade, Mode.ANSWER, ["caller"], name).hear({"caller": question(name)}) for name in names]
    engine = Engine(cascade)
    together: dict[str, list[Event]] = {name: [] for name in names}
    people = (Participant("caller", Role.CALLER),)
    instruction = Instruction(Mode.ANSWER, "Help.", people, Knowledge(GARAGE).cards())
    streams = {name: engine.open(name, instruction, Past(), together[name].append) for name in names}
    audio = {name: question(name) for name in names}
    for index in range(max(map(len, audio.values())) // CHUNK_BYTES):
        for name, pcm in audio.items():
            if len(part := pcm[index * CHUNK_BYTES : (index + 1) * CHUNK_BYTES]) == CHUNK_BYTES:
                engine.hear(streams[name], Chunk(name, "caller", index, part), 1e12)
        engine.step()
    for line, name in zip(alone, names, strict=True):
        heard = [e.heard for e in together[name] if isinstance(e, ResponseOpened)]
        assert heard == [e.heard for e in line.opened()]
        assert [e.sources for e in together[name] if isinstance(e, ResponseOpened)] == [
            e.sources for e in line.opened()
        ]


def test_a_takeover_goes_on_without_saying_anything_twice(cascade: Cascade) -> None:
    tracks = garage(17.2)
    whole = Line(cascade, Mode.ASSIST, list(tracks)).hear(tracks).close()
    cut = 28  # Chunks, in the middle of an utterance of the caller
    first = Line(cascade, Mode.ASSIST, list(tracks)).hear(tracks, end=cut)
    done = tuple(first.utterances())
    past = Past(
        utterances=done,
        decided=tuple((name, cut - 1) for name in tracks),
        responses=tuple(PastResponse(e.response_id, e.participant_id, e.chunk) for e in first.opened()),
    )
    second = Line(cascade, Mode.ASSIST, list(tracks), past=past)
    ends = {name: max((u.end_s for u in done if u.participant_id == name), default=0.0) for name in tracks}
    begin = min(int(end / CHUNK_S) for end in ends.values())
    second.hear(tracks, begin=begin).close()
    for name in tracks:
        chunks = [chunk for chunk, _ in first.choices(name) + second.choices(name)]
        assert chunks == list(range(len(tracks[name]) // CHUNK_BYTES))
    ids = [u.id for u in (*done, *second.utterances())]
    assert len(ids) == len(set(ids))
    assert {u.id for u in whole.utterances()} == set(ids), "the same utterances as if nothing had happened"
    hints = [event.response_id for event in (*first.opened(), *second.opened())]
    assert len(hints) == len(set(hints))
    given = [event.response_id for event in second.events if isinstance(event, ResponseClosed) and event.text]
    assert sorted(given) == sorted(hints)  # also those of which the first worker had announced no more than the name


def test_a_question_whose_answer_died_with_the_worker_is_answered(cascade: Cascade) -> None:
    asked = Utterance("caller-3", "caller", 1.2, 2.6, "What time do you close?", confidence=0.9)
    silence = {"caller": bytes(32_000 * 6)}
    past = Past(utterances=(asked,), decided=(("caller", 6),))
    line = Line(cascade, Mode.ANSWER, ["caller"], past=past).hear(silence)
    assert [(e.response_id, e.trigger_s) for e in line.opened()] == [("answer-caller-3", 2.6)]
    answered = Answer("answer-caller-3", 3.0, "We close at six.", "We close at six.", False, 600)
    begun = PastResponse("answer-caller-3", "caller", 6)
    past = Past(utterances=(asked,), answers=(answered,), decided=(("caller", 6),), responses=(begun,))
    line = Line(cascade, Mode.ANSWER, ["caller"], past=past).hear(silence)
    assert line.opened() == []


def test_a_call_that_fails_in_a_step_leaves_the_others_alone(
    cascade: Cascade, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    genuine = cascade._decide

    def decide(call: CallStream, side: Side) -> tuple[Choice, float]:
        if call.call_id == "bad":
            raise RuntimeError("on purpose")
        return genuine(call, side)

    monkeypatch.setattr(cascade, "_decide", decide)
    engine, events = Engine(cascade), list[Event]()
    instruction = Instruction(Mode.TRANSCRIBE, "", (Participant("caller", Role.CALLER),))
    for call_id in ("bad", "good"):
        stream = engine.open(call_id, instruction, Past(), events.append)
        engine.hear(stream, Chunk(call_id, "caller", 0, bytes(CHUNK_BYTES)), 1e12)
    assert engine.step() == 2
    decided = {event.call_id: event for event in events if isinstance(event, Decided)}
    assert (decided["bad"].choice, decided["bad"].score) == (Choice.SILENT, 0.0)
    assert decided["good"].score > 0.5
    assert engine.books.failed == 1
    assert [r.call_id for r in caplog.records if r.message == "failed in a step"] == ["bad"]  # type: ignore[attr-defined]


class NoIndex:
    """An embedder whose weights are broken."""

    def embed(self, texts: Sequence[str]) -> Array:
        raise RuntimeError("on purpose")

    embed_set = embed


@pytest.mark.parametrize("mode", [Mode.ASSIST, Mode.ANSWER])
def test_a_call_whose_cards_cannot_be_indexed_goes_on_without_them(
    cascade: Cascade, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, mode: Mode
) -> None:
    cascade.parts.refiner.wait(60)
    monkeypatch.setattr(cascade.parts, "libraries", Libraries(NoIndex()))
    tracks = {"caller": question("1-hours")}
    line = Line(cascade, mode, ["caller"])
    assert isinstance(line.stream, CallStream)
    assert line.stream.library is not None
    with pytest.raises(RuntimeError, match="on purpose"):
        line.stream.library.result(10)
    line.hear(tracks).close()
    cascade.parts.refiner.wait(60)
    assert [index for index, _ in line.choices("caller")] == list(range(-(-len(tracks["caller"]) // CHUNK_BYTES)))
    assert line.engine.books.failed == 0
    assert line.utterances()
    assert line.utterances(revision=1)
    said = [e.text for e in line.events if isinstance(e, ResponseClosed)]
    assert (said, [e.sources for e in line.opened()]) == (([], []) if mode is Mode.ASSIST else ([""], [()]))
    assert [e.kind for e in line.events if isinstance(e, Notice)] == ["knowledge"]
    assert [r.call_id for r in caplog.records if r.levelname == "ERROR"] == ["c"]  # type: ignore[attr-defined]
