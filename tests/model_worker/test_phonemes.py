from __future__ import annotations

import shutil

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model_worker.phonemes import KOKORO_TOKENS, PhonemeError, kokoro_tokens, phonemes, piper_tokens

needs_espeak = pytest.mark.skipif(shutil.which("espeak-ng") is None, reason="apt install espeak-ng")


@needs_espeak
def test_words_become_sounds_and_punctuation_stays() -> None:
    assert phonemes("Hello, Anna. Is it you?") == "həlˈoʊ, ˈænə. ɪz ɪt jˈuː?"
    assert phonemes("?!") == phonemes("") == ""


@needs_espeak
def test_a_very_long_line_comes_back_whole() -> None:
    ipa = phonemes("we open at nine " * 120)
    assert ipa.count("nˈaɪn") == 120


@needs_espeak
@settings(max_examples=25, deadline=None)
@given(st.text(max_size=40))
def test_any_text_is_survived(text: str) -> None:
    ids, _ = kokoro_tokens(phonemes(text))
    assert all(0 < token <= 177 for token in ids)


@needs_espeak
@pytest.mark.parametrize("british", [False, True])
def test_kokoro_knows_every_english_sound(british: bool) -> None:
    text = "The quick brown fox; jumps over a judge's chair, really? Yes! Thirty boys enjoy pure measure, though, oil."
    ids, unknown = kokoro_tokens(phonemes(text, "en-gb-x-rp" if british else "en-us"), british=british)
    assert unknown == 0
    assert len(ids) > 60


def test_kokoro_writes_diphthongs_as_one_letter() -> None:
    ids, unknown = kokoro_tokens("tʃaɪ☃")
    assert ids == [KOKORO_TOKENS["ʧ"], KOKORO_TOKENS["I"]]
    assert unknown == 1


def test_piper_pads_every_sound() -> None:
    table = {"_": [0], "^": [1], "$": [2], "a": [14], "b": [15]}
    assert piper_tokens("ab☃", table) == ([1, 0, 14, 0, 15, 0, 2], 1)


def test_without_espeak_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(PhonemeError, match="apt install espeak-ng"):
        phonemes("some words that are in no cache")
