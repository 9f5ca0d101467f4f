from __future__ import annotations

import os
import pickle
from pathlib import Path

import numpy as np
import pytest

from calls.settings import Settings
from model_worker.catalogue import Catalogue, CatalogueError, ModelMissing
from soundflow.errors import NotWritten
from soundflow.speech import NotUnderstood, Speech, SpeechError, espeak
from tests.soundflow.making import full_disk

HELLO = "Hello, I am calling about my washing machine."


def models(*names: str) -> Path:
    home = Settings().models
    for name in names:
        try:
            Catalogue(home, dict(os.environ)).path(name)
        except CatalogueError as error:
            pytest.skip(str(error))
    return home


def test_espeak_says_the_same_again() -> None:
    one, other = espeak(HELLO, "en-us+f3@150,40"), espeak(HELLO, "en-us+f3@150,40")
    assert np.array_equal(one, other)
    assert 1.5 < len(one) / 16_000 < 5.0
    assert len(espeak(HELLO, "en-us+f3@220,40")) < 0.85 * len(one)
    assert len(espeak("¿Cuándo abre la tienda mañana?", "es+m1")) > 16_000
    with pytest.raises(SpeechError, match="zz"):
        espeak(HELLO, "zz")


def test_voices_whose_models_are_missing_are_told_all_at_once(tmp_path: Path) -> None:
    speech = Speech(tmp_path, tmp_path / "nowhere", check=True)
    speech.ready(["espeak:es+m1"])
    with pytest.raises(ModelMissing, match=r"pull kokoro; .* pull piper-joe; .* pull whisper-base$"):
        speech.ready(["kokoro:af_heart*0.5+am_michael*0.5", "piper:joe", "espeak:en-us+f1"])
    Speech(tmp_path, tmp_path / "nowhere").ready(["espeak:en-us+f1"])


@pytest.mark.parametrize("voice", ["espeak:en-us+f1", "kokoro:af_heart", "piper:joe"])
def test_a_missing_espeak_is_told_before_anything_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, voice: str
) -> None:
    """Of the other voices it makes the phonemes."""
    monkeypatch.setenv("PATH", str(tmp_path))
    speech = Speech(tmp_path, tmp_path / "nowhere")
    with pytest.raises(SpeechError, match="apt install espeak-ng"):
        speech.ready([voice])
    speech.ready([])


def test_an_espeak_that_fails_says_how(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("soundflow.speech._TIMEOUT_S", 0.0)
    with pytest.raises(SpeechError, match="run the same command again") as error:
        espeak(HELLO, "en-us")
    assert not isinstance(error.value, NotUnderstood)
    monkeypatch.undo()
    program = tmp_path / "espeak-ng"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SpeechError, match="wrote no sound"):
        espeak(HELLO, "en-us")


def test_speech_that_cannot_be_kept_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    speech = Speech(tmp_path, Path("/nowhere"))
    monkeypatch.setattr(speech, "_make", lambda text, voice: np.full(16_000, 0.5, np.float32))
    with full_disk(10_000), pytest.raises(NotWritten, match=r"the disk is full: .*\.wav"):
        speech.say(HELLO, ["espeak:en-us+f1"])
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]
    (tmp_path / "file").touch()
    with pytest.raises(NotWritten, match=r"\.wav could not be written"):
        Speech(tmp_path / "file", Path("/nowhere")).say(HELLO, ["espeak:en-us+f1"])


def test_what_was_said_is_kept_and_travels(tmp_path: Path) -> None:
    speech = Speech(tmp_path, Path("/nowhere"))
    said = speech.say(HELLO, ["espeak:en-us+m1"])
    (kept,) = tmp_path.rglob("*.wav")
    again = pickle.loads(pickle.dumps(speech)).say(HELLO, ["espeak:en-us+m1"])
    assert np.array_equal(said.pcm, again.pcm)
    assert kept.stat().st_nlink == 1
    assert len(list(tmp_path.rglob("*"))) == 2
    assert np.abs(said.pcm[-800:]).max() > 0.01  # no pause is left at its end
    with pytest.raises(SpeechError, match="no voice 'festival:x'"):
        speech.say(HELLO, ["festival:x"])


def test_a_voice_that_is_not_understood_gives_way(tmp_path: Path) -> None:
    """French read by a French voice is not this English sentence, whoever is asked to write it."""
    home = models("whisper-base", "piper-joe")
    speech = Speech(tmp_path, home, check=True)
    speech._make = lambda text, voice: (  # type: ignore[method-assign]
        espeak("Il fait beau aujourd'hui à Paris, n'est-ce pas ?", "fr+f2")
        if voice == "espeak:en-us+f2"
        else Speech._make(speech, text, voice)
    )
    said = speech.say(HELLO, ["espeak:en-us+f2", "piper:joe"])
    assert said.voice == "piper:joe"
    with pytest.raises(NotUnderstood, match="not understood"):
        speech.say(HELLO, ["espeak:en-us+f2"])


def test_a_blend_of_voices(tmp_path: Path) -> None:
    speech = Speech(tmp_path, models("kokoro"))
    one = speech.say("Hello.", ["kokoro:af_heart*0.5+am_michael*0.5"])
    other = speech.say("Hello.", ["kokoro:af_heart"])
    assert 0.2 < len(one.pcm) / 16_000 < 2.0
    assert len(one.pcm) != len(other.pcm) or not np.allclose(one.pcm, other.pcm)
