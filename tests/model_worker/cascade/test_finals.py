from __future__ import annotations

from collections.abc import Callable

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.speech import Pcm, prompts
from benchmarks.wer import word_error_rate
from model_worker.cascade.finals import NOTHING, FinalRecogniser, compression, group_words, said_again, split_points

Speech = Callable[[str], Pcm]
NAMES = ["agent-newlocation", "auth-thankyou", "conf-extended", "conf-onlyperson", "invalid", "transfer"]


def test_it_hears_telephone_prompts_with_word_times(final_recogniser: FinalRecogniser, speech: Speech) -> None:
    pairs = []
    for name in NAMES:
        pcm = speech(name)
        final = final_recogniser.transcribe(pcm)
        pairs.append((prompts()[name], final.text))
        assert 0.4 < final.confidence <= 1.0
        assert " ".join(word.text for word in final.words) == final.text
        times = [t for word in final.words for t in (word.start_s, word.end_s)]
        assert times == sorted(times)
        assert 0 <= times[0] <= times[-1] <= len(pcm) / 16_000
        assert all(0 <= word.probability <= 1 for word in final.words)
    assert word_error_rate(pairs) < 0.08, pairs


def test_word_times_follow_the_audio(final_recogniser: FinalRecogniser, speech: Speech) -> None:
    pcm = speech("conf-extended")
    later = np.concatenate([np.zeros(16_000, np.float32), pcm])
    here, there = (final_recogniser.transcribe(audio).words for audio in (pcm, later))
    assert abs(there[-1].start_s - here[-1].start_s - 1.0) < 0.15


def test_long_audio_is_cut_and_nothing_is_lost(final_recogniser: FinalRecogniser, speech: Speech) -> None:
    names = ["agent-user", "conf-getpin", "demo-echodone", "invalid", "privacy-prompt", "queue-periodic-announce"]
    pcm = np.concatenate([part for name in names for part in (speech(name), np.zeros(8_000, np.float32))])
    final = final_recogniser.transcribe(pcm)
    assert word_error_rate([(" ".join(prompts()[name] for name in names), final.text)]) < 0.1, final.text
    starts = [word.start_s for word in final.words]
    assert starts == sorted(starts)
    assert starts[-1] > len(pcm) / 16_000 - 6


def test_a_line_that_is_said_again_and_again_is_written_once(final_recogniser: FinalRecogniser, speech: Speech) -> None:
    """On these the decoder finds no end."""
    pairs = [
        (prompts()[name], final_recogniser.transcribe(np.pad(speech(name), pad)).text)
        for name in ("vm-forward", "vm-starmain", "vm-tomakecall", "vm-forward-multiple")
        for pad in ((0, 0), (4_800, 8_000))
    ]
    assert word_error_rate(pairs) < 0.08, pairs


def test_where_a_line_begins_again() -> None:
    assert said_again([1, 2, 3, 4, 1, 2, 3]) == 4
    assert said_again([1, 2, 3, 4, 5, 1, 2, 3, 4, 5, 1]) == 5
    assert said_again([1, 2, 3, 4, 1, 2]) is None
    assert said_again([1, 2, 3, 4, 5, 6, 7]) is None
    assert said_again([]) is None


def test_silence_noise_and_tones_say_nothing(final_recogniser: FinalRecogniser) -> None:
    rng = np.random.default_rng(0)
    tone = (0.2 * np.sin(np.arange(32_000) * 2 * np.pi * 440 / 16_000)).astype(np.float32)
    for pcm in (np.zeros(16_000, np.float32), rng.normal(0, 0.03, 48_000).astype(np.float32), tone, tone[:50]):
        assert final_recogniser.transcribe(pcm) == NOTHING


def test_a_prompt_is_allowed(final_recogniser: FinalRecogniser, speech: Speech) -> None:
    final = final_recogniser.transcribe(speech("transfer"), "Please enter your extension.")
    assert "hold" in final.text


@given(st.integers(0, 60 * 16_000), st.integers(0, 2**31))
def test_cuts_cover_the_audio_in_pieces_of_at_most_fourteen_seconds(samples: int, seed: int) -> None:
    pcm = np.random.default_rng(seed).random(samples, np.float32)
    points = split_points(pcm)
    assert points[-1] == samples
    lengths = np.diff([0, *points])
    assert (lengths[:-1] >= 8 * 16_000).all()
    assert (lengths <= 14 * 16_000).all()


def test_the_cut_is_where_it_is_quiet() -> None:
    pcm = np.ones(20 * 16_000, np.float32)
    pcm[11 * 16_000 : 12 * 16_000] = 0
    assert 11 * 16_000 <= split_points(pcm)[0] <= 12 * 16_000


@given(st.lists(st.sampled_from([" a", "b", ",", " ", " -", " word", "'s"]), max_size=20))
def test_words_cover_all_tokens_in_order(pieces: list[str]) -> None:
    ranges = group_words(pieces)
    assert [i for first, last in ranges for i in range(first, last)] == list(range(len(pieces)))


def test_repetition_compresses() -> None:
    assert compression("thank you for watching. " * 10) > 2.4 > compression("Please hold while I try that extension.")
    assert compression("") == 0
