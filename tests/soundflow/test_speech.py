from __future__ import annotations

import os
import pickle
import re
from pathlib import Path

import numpy as np
import pytest

from calls.settings import Settings
from model_worker.catalogue import Catalogue, CatalogueError, ModelMissing, load_table
from soundflow import config, espeak
from soundflow.errors import NotWritten, SpeechError
from soundflow.items import SPLITS
from soundflow.speech import Cast, NotUnderstood, Speech
from soundflow.tasks.draw import LANGUAGES
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
    one, other = espeak.say(HELLO, "en-us+f3@150,40"), espeak.say(HELLO, "en-us+f3@150,40")
    assert np.array_equal(one, other)
    assert 1.5 < len(one) / 16_000 < 5.0
    assert len(espeak.say(HELLO, "en-us+f3@220,40")) < 0.85 * len(one)
    assert len(espeak.say("¿Cuándo abre la tienda mañana?", "es+m1")) > 16_000
    with pytest.raises(SpeechError, match="zz"):
        espeak.say(HELLO, "zz")


def test_voices_whose_models_are_missing_are_told_all_at_once(tmp_path: Path) -> None:
    speech = Speech(tmp_path, tmp_path / "nowhere", check=True)
    speech.ready(["espeak:es+m1"])
    with pytest.raises(ModelMissing, match=r"pull kokoro; .* pull piper-joe; .* pull whisper-base$"):
        speech.ready(["kokoro:af_heart*0.5+am_michael*0.5", "piper:joe", "espeak:en-us+f1"])
    Speech(tmp_path, tmp_path / "nowhere").ready(["espeak:en-us+f1"])


@pytest.fixture
def kokoro(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where its files would be, all of them empty: which voices there are is seen by their names."""
    folder = tmp_path / "kokoro"
    for file in load_table()["kokoro"].files:
        (folder / file.name).parent.mkdir(parents=True, exist_ok=True)
        (folder / file.name).touch()
    monkeypatch.setenv("OFFHOOK_MODEL_DIR_KOKORO", str(folder))
    return folder


@pytest.mark.parametrize(
    ("voice", "said"),
    [
        ("festival:x", "no voice 'festival:x': kokoro:NAME, "),
        ("joe", "no voice 'joe': kokoro:NAME, "),
        ("espeak:", "espeak:: "),
        ("espeak:zz-zz", "espeak:zz-zz: espeak-ng has no language 'zz-zz'; espeak-ng --voices lists them"),
        ("espeak:en-xx+m1", "espeak-ng has no language 'en-xx'"),  # it would speak as `en`
        ("espeak:en-us+zz", "no variant 'zz'; espeak-ng --voices=variant lists them"),  # it would speak as `en-us`
        ("espeak:en-us+m1@fast", "espeak:en-us+m1@fast: after the voice only @SPEED or @SPEED,PITCH"),
        ("espeak:en-us+m1@1600", "80 to 500 words a minute"),
        ("espeak:en-us+m1@160,100", "and 0 to 99"),
        ("kokoro:nobody", "kokoro:nobody: Kokoro has no 'nobody'; it has af_bella, af_heart, "),
        ("kokoro:af_heart*0.5+nobody*0.5", "Kokoro has no 'nobody'"),
        ("kokoro:af_heart*x", "kokoro:af_heart*x: 'x' of af_heart is no weight; it must be a number above 0"),
        ("kokoro:af_heart*0+af_bella", "'0' of af_heart is no weight"),
        ("kokoro:af_heart*-0.5", "'-0.5' of af_heart is no weight"),
        ("kokoro:af_heart*nan", "'nan' of af_heart is no weight"),
    ],
)
def test_a_name_that_is_no_voice_is_told_before_anything_is_said(
    tmp_path: Path, kokoro: Path, voice: str, said: str
) -> None:
    speech = Speech(tmp_path / "speech", tmp_path / "nowhere")
    with pytest.raises(SpeechError) as error:
        speech.ready(["espeak:en-us+f1", voice])
    assert said in str(error.value)


def test_the_voices_that_are_used_are_there(tmp_path: Path, kokoro: Path) -> None:
    speech = Speech(tmp_path / "speech", tmp_path / "nowhere")
    for cast in (config.load("test").cast, config.load("compact").cast):
        voices = [voice for split in SPLITS for voice in cast.voices(split)]
        voices += [voice for split in SPLITS for language in LANGUAGES for voice in cast.foreign(language, split)]
        speech.ready([voice for voice in voices if voice != "piper:joe"])
    speech.ready(["espeak:en", "espeak:es-419+Mr serious", "espeak:pt-pt@120", "kokoro:af_heart*.5+af_bella*2"])


@pytest.mark.parametrize("voices", ["espeak:en-us+m1", (), (5,)])
def test_a_split_without_voices_is_told(voices: tuple[str, ...]) -> None:
    with pytest.raises(SpeechError, match=r"voices\.dev is .*; it must be a list of voices"):
        Cast(("espeak:en-us+m2",), voices, ("espeak:en-us+f1",))


def test_a_voice_that_speaks_faster_is_the_same_voice() -> None:
    with pytest.raises(SpeechError, match=r"voices in train and test both: espeak:en-us\+m1"):
        Cast(("espeak:en-us+m1@150,40",), ("espeak:en-us+f1",), ("espeak:en-us+m1",))


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
    monkeypatch.setattr("soundflow.espeak._TIMEOUT_S", 0.0)
    with pytest.raises(SpeechError, match="run the same command again") as error:
        espeak.say(HELLO, "en-us")
    assert not isinstance(error.value, NotUnderstood)
    monkeypatch.undo()
    program = tmp_path / "espeak-ng"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SpeechError, match="wrote no sound"):
        espeak.say(HELLO, "en-us")


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


@pytest.mark.parametrize("left", [0, 20, 1_001, 5_000])
def test_a_damaged_utterance_is_made_again_if_it_will_be_the_same(tmp_path: Path, left: int) -> None:
    said = Speech(tmp_path, Path("/nowhere")).say(HELLO, ["espeak:en-us+m1"])
    (path,) = tmp_path.rglob("*.wav")
    before = path.read_bytes()
    path.write_bytes(before[:left])
    again = Speech(tmp_path, Path("/nowhere")).say(HELLO, ["espeak:en-us+m1"])
    assert np.array_equal(said.pcm, again.pcm)
    assert path.read_bytes() == before
    assert len(list(tmp_path.rglob("*"))) == 2


@pytest.mark.parametrize(("voice", "check"), [("kokoro:af_heart", False), ("espeak:en-us+m1", True)])
def test_a_damaged_utterance_that_might_be_another_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, voice: str, check: bool
) -> None:
    """A neural voice says nothing twice in the same way; what a recogniser understood it may not understand again."""
    monkeypatch.setattr(Speech, "_make", lambda self, text, voice: np.full(16_000, 0.5, np.float32))
    monkeypatch.setattr(Speech, "_understood", lambda self, pcm, text: True)
    Speech(tmp_path, Path("/nowhere"), check=check).say(HELLO, [voice])
    (path,) = tmp_path.rglob("*.wav")
    path.write_bytes(b"")
    for _ in range(2):  # whoever does not listen is told again
        with pytest.raises(SpeechError, match=rf"{path.name} is damaged, .*{re.escape(voice)} .*: remove it") as error:
            Speech(tmp_path, Path("/nowhere"), check=check).say(HELLO, [voice])
        assert not isinstance(error.value, NotUnderstood)
    path.unlink()
    Speech(tmp_path, Path("/nowhere"), check=check).say(HELLO, [voice])


def test_what_another_process_kept_first_is_what_is_heard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mine, other = (np.full(16_000, level, np.float32) for level in (0.5, 0.25))

    def slowly(text: str, voice: str) -> np.ndarray:
        quick = Speech(tmp_path, Path("/nowhere"))
        monkeypatch.setattr(quick, "_make", lambda text, voice: other)
        quick.say(text, [voice])
        return mine

    speech = Speech(tmp_path, Path("/nowhere"))
    monkeypatch.setattr(speech, "_make", slowly)
    assert np.allclose(speech.say(HELLO, ["kokoro:af_heart"]).pcm[:16_000], other, atol=1e-4)
    assert len(list(tmp_path.rglob("*"))) == 2


def test_what_is_kept_survives_a_power_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It reaches the disk before it has its name."""
    synced: list[list[Path]] = []
    monkeypatch.setattr(os, "fsync", lambda handle: synced.append(list(tmp_path.rglob("[!.]*.wav"))))
    Speech(tmp_path, Path("/nowhere")).say(HELLO, ["espeak:en-us+m1"])
    assert synced == [[]]
    assert len(list(tmp_path.rglob("[!.]*.wav"))) == 1


def test_a_voice_that_is_not_understood_gives_way(tmp_path: Path) -> None:
    """French read by a French voice is not this English sentence, whoever is asked to write it."""
    home = models("whisper-base", "piper-joe")
    speech = Speech(tmp_path, home, check=True)
    speech._make = lambda text, voice: (  # type: ignore[method-assign]
        espeak.say("Il fait beau aujourd'hui à Paris, n'est-ce pas ?", "fr+f2")
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
