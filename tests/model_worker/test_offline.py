"""The job after a call: segments, transcript, summary. Real weights, real speech."""

from __future__ import annotations

import io
import json
import sys
import tracemalloc
import wave
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from model_worker import offline
from model_worker.cascade.finals import Final, FinalRecogniser, Word
from model_worker.cascade.vad import VoiceActivity
from model_worker.offline import RecordingError, Segmenter, lines_of, read, transcribe
from model_worker.summary import Line, disposition, extract, summarise, tidy, transcript, why_not
from tests.model_worker.conftest import Models

DEMO = Path(__file__).resolve().parents[2] / "offhook" / "demo"
Samples = npt.NDArray[np.int16]


def samples(path: Path) -> Samples:
    with wave.open(str(path)) as file:
        return np.frombuffer(file.readframes(file.getnframes()), "<i2")


def write(path: Path, left: Samples, right: Samples, rate: int = 16_000) -> Path:
    longest = max(len(left), len(right))
    both = np.stack([np.pad(side, (0, longest - len(side))) for side in (left, right)], axis=1)
    with wave.open(str(path), "wb") as file:
        file.setnchannels(2)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(both.astype("<i2").tobytes())
    return path


@pytest.fixture(scope="module")
def voice(models: Models) -> VoiceActivity:
    return VoiceActivity(models("silero-vad"))


@pytest.fixture(scope="module")
def finals(models: Models) -> FinalRecogniser:
    return FinalRecogniser(models("whisper-base"))


def lengths(pcm: npt.NDArray[np.float32], prompt: str) -> Final:
    """A recogniser that hears only how long it was."""
    seconds = len(pcm) / 16_000
    return Final(f"{seconds:.0f} seconds", (Word("x", 0.5, seconds - 0.5, 1.0),), 1.0)


def test_the_garage_call_in_two_channels(voice: VoiceActivity, finals: FinalRecogniser, tmp_path: Path) -> None:
    caller, agent = (samples(DEMO / "garage-call" / f"{who}.wav")[: 36 * 8000] for who in ("caller", "agent"))
    path = write(tmp_path / "call.wav", caller, agent, rate=8000)
    found = transcribe(read(path), ["caller", "human_agent"], voice, finals.transcribe)
    said = {
        who: " ".join(each["text"] for each in found if each["participant_id"] == who)
        for who in ("caller", "human_agent")
    }
    assert "Suzanne" in said["caller"]
    assert "oil light" in said["caller"]
    assert "serviced here" in said["human_agent"]
    assert [each["start_s"] for each in found] == sorted(each["start_s"] for each in found)
    for each in found:
        times = [time for word in each["words"] for time in (word["start_s"], word["end_s"])]
        assert times == sorted(times)
        assert each["start_s"] <= each["end_s"] <= 36.5


def test_an_utterance_lies_where_it_was_said(voice: VoiceActivity, finals: FinalRecogniser, tmp_path: Path) -> None:
    question = samples(DEMO / "caller" / "1-hours.wav")
    loud = np.flatnonzero(np.abs(question.astype(int)) > 1000) / 16_000
    left = np.concatenate([np.zeros(16_000 * 31, np.int16), question])  # in the second block
    found = transcribe(read(write(tmp_path / "call.wav", left, left[:0])), ["caller"], voice, finals.transcribe)
    assert len(found) == 1
    assert found[0]["start_s"] == pytest.approx(31 + loud[0], abs=0.5)
    assert found[0]["end_s"] == pytest.approx(31 + loud[-1], abs=0.5)


def test_long_speech_is_cut_and_nothing_is_left_out(voice: VoiceActivity) -> None:
    question = samples(DEMO / "caller" / "1-hours.wav").astype(np.float32) / 32768
    loud = np.flatnonzero(np.abs(question) > 0.03)
    without_pauses = np.tile(question[loud[0] : loud[-1]], 24).astype(np.float32)
    segmenter = Segmenter(voice)
    segments = [*segmenter.feed(without_pauses), *segmenter.close()]
    assert max(len(segment.pcm) for segment in segments) <= 25.1 * 16_000
    assert sum(len(segment.pcm) for segment in segments) == pytest.approx(len(without_pauses), rel=0.1)
    ends = [segment.start_s + len(segment.pcm) / 16_000 for segment in segments]
    assert all(segment.start_s >= end - 0.1 for segment, end in zip(segments[1:], ends, strict=False))


def test_memory_does_not_grow_with_the_recording(voice: VoiceActivity) -> None:
    """20 minutes of speech and silence in turn; what is kept is text."""
    question = samples(DEMO / "caller" / "1-hours.wav").astype(np.float32) / 32768
    minute = np.tile(np.concatenate([question, np.zeros(26_226, np.float32)]), 12)

    def blocks(minutes: int) -> Iterator[npt.NDArray[np.float32]]:
        for _ in range(minutes):
            yield minute[:, None]

    def peak(minutes: int) -> int:
        tracemalloc.start()
        found = transcribe(blocks(minutes), ["caller"], voice, lengths)
        assert len(found) == pytest.approx(12 * minutes, abs=2)
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return most

    assert peak(8) < 1.2 * peak(2)


@pytest.mark.parametrize("seconds", [0.0, 0.01, 40.0])
def test_silence_has_no_words(seconds: float, voice: VoiceActivity, finals: FinalRecogniser, tmp_path: Path) -> None:
    silence = np.zeros(int(seconds * 16_000), np.int16)
    path = write(tmp_path / "call.wav", silence, silence)
    assert transcribe(read(path), ["caller", "human_agent"], voice, finals.transcribe) == []


def test_mono_has_no_right_channel(voice: VoiceActivity, tmp_path: Path) -> None:
    path = DEMO / "caller" / "1-hours.wav"
    found = transcribe(read(path), ["caller", "human_agent"], voice, lengths)
    assert {each["participant_id"] for each in found} == {"caller"}


@pytest.mark.parametrize("content", [b"", b"RIFF", b"not a wav at all" * 10])
def test_what_is_no_recording_is_said_so(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "x.wav"
    path.write_bytes(content)
    with pytest.raises(RecordingError, match=r"x\.wav"):
        list(read(path))
    with pytest.raises(RecordingError):
        list(read(tmp_path / "absent.wav"))


def test_the_command(
    models: Models, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    models("silero-vad"), models("whisper-base")
    monkeypatch.setattr(offline, "language_model", lambda settings, catalogue: None)
    question = samples(DEMO / "caller" / "1-hours.wav")
    path = write(tmp_path / "call.wav", question, question)
    answers = [{"id": "r1", "at_s": 4.0, "text": "We are open from eight to six."}, {"id": "x", "at_s": 5, "text": ""}]
    monkeypatch.setattr(sys, "stdin", io.StringIO(json.dumps({"answers": answers})))
    assert offline.main(["--recording", str(path), "--only", "caller", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert {said["participant_id"] for said in result["utterances"]} == {"caller"}
    assert "open" in result["utterances"][0]["text"]
    assert "We are open from eight to six." in result["summary"]
    monkeypatch.setattr(sys, "stdin", io.StringIO(""))
    assert offline.main(["--recording", str(tmp_path / "absent.wav"), "--json"]) == 2


# --- the summary -------------------------------------------------------------------------------------------------

CALL = [
    Line(0, "Agent", "Hello, this is Kestrel Garage. How can I help?", "greeting"),
    Line(5, "Caller", "Hi, my oil light is still on after the oil change yesterday."),
    Line(9, "Agent", "The maintenance light often stays on after an oil change, because nobody reset it.", "r"),
    Line(15, "Caller", "Okay, thank you, bye."),
]


class Parrot:
    def __init__(self, text: str) -> None:
        self.text = text

    def stream(self, messages: object, **_: object) -> Iterator[str]:
        yield from self.text

    def warm(self, prefix_messages: object) -> None: ...


def test_a_good_summary_is_believed() -> None:
    good = "The caller's oil light stayed on after an oil change. The agent said that nobody reset it."
    assert summarise(CALL, Parrot(good)) == good


@pytest.mark.parametrize(
    "nonsense",
    [
        "",
        "Okay.",
        "The customer bought seventeen elephants in Paris and flew home happily with balloons.",
        "The oil light was on after 42 oil changes and the light stayed on.",
        "As an AI language model, the oil light change is still on after the oil change.",
    ],
)
def test_nonsense_is_replaced_by_the_calls_own_words(nonsense: str) -> None:
    assert why_not(nonsense, CALL)
    assert summarise(CALL, Parrot(nonsense)) == extract(CALL)
    assert "oil light is still on" in extract(CALL)


def test_repeated_and_unfinished_sentences_are_dropped() -> None:
    text = "The light is on. It was reset by the agent. The light is on. The caller then went to"
    assert tidy(text) == "The light is on. It was reset by the agent."


def test_nobody_spoke() -> None:
    assert summarise([], None) == ""
    assert summarise(CALL[:1], None) == "The caller said nothing."
    assert disposition(CALL[:1]) == "no speech"


@pytest.mark.parametrize(
    ("kind", "expected"),
    [("r", "resolved"), ("noted", "message taken"), ("unknown", "unanswered"), ("person", "unanswered")],
)
def test_disposition(kind: str, expected: str) -> None:
    assert disposition([*CALL[:2], Line(9, "Agent", "...", kind), CALL[3]]) == expected


def test_a_long_call_is_given_by_its_beginning_and_end() -> None:
    lines = [Line(n, "Caller", f"word{n}") for n in range(5000)]
    text = transcript(lines, 300)
    assert len(text.split()) < 310
    assert "word0" in text
    assert "word4999" in text


def test_lines_are_in_order_and_name_their_kind() -> None:
    said = [{"participant_id": "caller", "start_s": 3.0, "text": "Do you paint?"}]
    answers = [{"id": "unknown-12", "at_s": 5.0, "text": "No idea."}, {"id": "greeting", "at_s": 0.0, "text": "Hello."}]
    assert [(line.speaker, line.kind) for line in lines_of(said, answers)] == [
        ("Agent", "greeting"),
        ("Caller", ""),
        ("Agent", "unknown"),
    ]
