from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import httpx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.wer import word_error_rate
from model_worker import voice as voice_module
from model_worker.cascade.finals import FinalRecogniser
from model_worker.interaction.tokens import EMOTIONS
from model_worker.spoken import spoken
from model_worker.voice import (
    STYLES,
    ClauseVoice,
    KokoroVoice,
    Pcm,
    PiperVoice,
    RemoteVoice,
    VoiceError,
    resample,
    trim,
)

TEXT = "Sure, we open at 8:30 on Monday. Would you like to book a visit with Dr. Lee?"


def heard(pieces: list[Pcm], recogniser: FinalRecogniser) -> str:
    return spoken(recogniser.transcribe(np.concatenate(pieces)).text)


def test_piper_is_understood(piper: PiperVoice, final_recogniser: FinalRecogniser) -> None:
    pieces = list(piper.say(TEXT))
    assert len(pieces) == 2
    assert all(piece.dtype == np.float32 and 0.1 < np.abs(piece).max() <= 1.5 for piece in pieces)
    said = heard(pieces, final_recogniser).replace("eight point three zero", "eight thirty")
    assert word_error_rate([(spoken(TEXT), said)]) < 0.2, said


def test_slow_is_longer_than_quick(piper: PiperVoice) -> None:
    # Piper draws the length of each sound at random, so a single short phrase proves nothing.
    text = "Please hold the line. I am looking for your appointment. It will only take a moment. Thank you for waiting."
    slow, quick = (sum(map(len, piper.say(text, style=style))) for style in ("slow", "quick"))
    assert slow > 1.05 * quick
    with pytest.raises(VoiceError, match="normal"):
        list(piper.say("Hello.", style="sung"))


def test_every_emotion_of_a_model_is_a_style() -> None:
    assert set(EMOTIONS) <= set(STYLES)


def test_kokoro_is_understood(models: Callable[[str], Path], final_recogniser: FinalRecogniser) -> None:
    kokoro = KokoroVoice(models("kokoro"), {"af_heart": 0.6, "af_bella": 0.4})
    said = heard(list(kokoro.say("Please hold the line while I check your order.")), final_recogniser)
    assert word_error_rate([("Please hold the line while I check your order.", said)]) < 0.2, said
    with pytest.raises(VoiceError, match="af_heart"):
        KokoroVoice(models("kokoro"), "nobody")


class Beeps(ClauseVoice):
    """A voice that counts what it makes: one second a clause."""

    def __init__(self) -> None:
        super().__init__()
        self.made: list[str] = []

    def _synthesise(self, clause: str, length: float) -> Pcm:
        self.made.append(clause)
        return np.full(16_000, 0.5, np.float32)


def test_speech_is_made_as_it_is_asked_for_and_once() -> None:
    beeps = Beeps()
    pieces = beeps.say("One moment. I will look.")
    assert beeps.made == []
    next(pieces)
    assert beeps.made == ["One moment."]
    list(pieces)
    list(beeps.say("One moment."))
    assert beeps.made == ["One moment.", "I will look."]


def test_the_oldest_is_forgotten_but_never_what_was_prepared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(voice_module, "_CACHE_S", 3.0)
    beeps = Beeps()
    beeps.prepare(["Welcome."])
    for text in ("Red.", "Green.", "Blue.", "Red.", "Welcome."):
        list(beeps.say(text))
    assert beeps.made == ["Welcome.", "Red.", "Green.", "Blue.", "Red."]


def test_what_cannot_be_said_is_not_synthesised() -> None:
    assert list(Beeps().say("... — !")) == []


def test_a_remote_voice_and_its_errors() -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        if b"broken" in request.content:
            return httpx.Response(503, text="overloaded")
        if b"away" in request.content:
            raise httpx.ConnectError("no route")
        tone = 12_000 * np.sin(np.arange(24_000) * 2 * np.pi * 440 / 24_000)
        return httpx.Response(200, content=tone.astype("<i2").tobytes() + b"\0")

    remote = RemoteVoice("http://voice/v1/", "tts", "alloy", client=httpx.Client(transport=httpx.MockTransport(answer)))
    (pcm,) = remote.say("Hello.")
    assert 16_000 <= len(pcm) <= 16_000 * 1.3
    with pytest.raises(VoiceError, match="503: overloaded"):
        list(remote.say("broken"))
    with pytest.raises(VoiceError, match="no route"):
        list(remote.say("away"))


@given(st.integers(2, 3_000), st.sampled_from([8_000, 22_050, 24_000]))
def test_resampling_keeps_a_constant(samples: int, rate: int) -> None:
    made = resample(np.full(samples, 0.25, np.float32), rate)
    assert len(made) == round(samples * 16_000 / rate)
    np.testing.assert_allclose(made, 0.25, atol=1e-5)


@given(st.integers(0, 2_000), st.integers(1, 2_000), st.integers(0, 2_000), st.floats(0, 0.3))
def test_trimming_leaves_the_sound_and_the_pause(before: int, sound: int, after: int, pause_s: float) -> None:
    silence, tone = np.zeros, np.full(sound, 0.5, np.float32)
    pcm = np.concatenate([silence(before, np.float32), tone, silence(after, np.float32)])
    kept = trim(pcm, pause_s)
    assert (kept > 0.1).sum() == sound
    assert len(kept) == min(before, 160) + sound + int(pause_s * 16_000)
    assert len(trim(np.zeros(100, np.float32), pause_s)) == 0
