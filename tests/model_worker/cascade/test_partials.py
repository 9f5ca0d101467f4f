from __future__ import annotations

from collections.abc import Callable

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.speech import Pcm, prompts
from benchmarks.wer import word_error_rate
from model_worker.cascade.partials import EMPTY, PartialRecogniser, loop_start, read_vocabulary

Speech = Callable[[str], Pcm]
NAMES = ["agent-incorrect", "agent-pass", "conf-extended", "conf-onlyperson", "invalid", "queue-thankyou", "transfer"]


def test_it_hears_telephone_prompts(partial_recogniser: PartialRecogniser, speech: Speech) -> None:
    heard = partial_recogniser.transcribe([speech(name) for name in NAMES])
    pairs = [(prompts()[name], partial.text) for name, partial in zip(NAMES, heard, strict=True)]
    assert word_error_rate(pairs) < 0.1, pairs
    assert all(0.3 < partial.confidence <= 1.0 and not partial.looped for partial in heard)


def test_a_batch_gives_what_each_line_gives_alone(partial_recogniser: PartialRecogniser, speech: Speech) -> None:
    # int8 activations are scaled by batch, so a letter may differ: compare by word errors, not by bytes.
    pcms = [speech(name) for name in NAMES]
    together = partial_recogniser.transcribe(pcms)
    alone = [partial_recogniser.transcribe([pcm])[0] for pcm in pcms]
    assert word_error_rate((a.text, b.text) for a, b in zip(alone, together, strict=True)) < 0.1


def test_the_line_grows_as_it_is_said(partial_recogniser: PartialRecogniser, speech: Speech) -> None:
    pcm = speech("agent-pass")
    texts = [partial_recogniser.transcribe([pcm[: len(pcm) * i // 4]])[0].text for i in (2, 3, 4)]
    assert texts[0].lower().startswith("please enter your")
    assert len(texts[0]) < len(texts[2])


def test_silence_and_scraps_are_empty(partial_recogniser: PartialRecogniser) -> None:
    scraps = [np.zeros(16_000, np.float32), np.zeros(0, np.float32), np.full(100, 0.5, np.float32)]
    assert partial_recogniser.transcribe(scraps) == [EMPTY] * 3
    assert partial_recogniser.transcribe([]) == []


def test_silence_between_speech_keeps_its_place(partial_recogniser: PartialRecogniser, speech: Speech) -> None:
    heard = partial_recogniser.transcribe([speech("invalid"), np.zeros(8_000, np.float32), speech("transfer")])
    assert heard[1] == EMPTY
    assert "extension" in heard[0].text
    assert "hold" in heard[2].text


def test_noise_does_not_run_away(partial_recogniser: PartialRecogniser) -> None:
    noise = np.random.default_rng(1).normal(0, 0.05, 4 * 16_000).astype(np.float32)
    assert len(partial_recogniser.transcribe([noise])[0].text.split()) < 12


@given(st.lists(st.integers(0, 9), max_size=8), st.lists(st.integers(10, 20), min_size=3, max_size=12, unique=True))
def test_a_phrase_said_three_times_is_cut_after_the_first(before: list[int], phrase: list[int]) -> None:
    assert loop_start(before + phrase * 2) is None or len(set(before)) < len(before)
    assert loop_start(before + phrase * 3) == len(before) + len(phrase)


@given(st.lists(st.integers(0, 5), max_size=60))
def test_a_cut_is_inside_the_line_and_leaves_what_was_repeated(tokens: list[int]) -> None:
    cut = loop_start(tokens)
    if cut is not None:
        assert 0 < cut < len(tokens)
        tail = tokens[cut:]
        assert tail == (tokens[:cut] + tail)[cut - _period(tokens, cut) :][: len(tail)]


def _period(tokens: list[int], cut: int) -> int:
    rest = len(tokens) - cut
    return next(w for w in range(1, 13) if rest % w == 0 and tokens[cut - w : -w] == tokens[cut:])


def test_four_equal_digits_are_not_a_loop() -> None:
    assert loop_start([7, 1, 1, 1, 1]) is None


@given(st.lists(st.binary(max_size=300), max_size=20))
def test_the_vocabulary_file_round_trips(tokens: list[bytes]) -> None:
    data = b"".join(_length(len(token)) + token for token in tokens)
    assert read_vocabulary(data) == tokens


def _length(n: int) -> bytes:
    return bytes([n]) if n < 128 else bytes([n % 128 + 128, n // 128])
