from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from soundflow.clips import decode
from soundflow.pictures import steps_picture
from soundflow.preprocess import (
    HALF_CHUNK,
    align,
    cut_silence,
    denoise,
    dense_span,
    istft,
    noise_profile,
    preprocess,
    rms,
    smooth,
    steps,
    stft,
)

SNEEZE = Path(__file__).resolve().parents[1] / "data" / "noises" / "1-26143-A.ogg"


def bursts(*spans: tuple[float, float], seconds: float = 6.0, noise: float = 0.0, seed: int = 1) -> np.ndarray:
    """A tone between the given seconds, on noise."""
    rng = np.random.default_rng(seed)
    t = np.arange(int(seconds * 16_000)) / 16_000
    pcm = rng.normal(0.0, noise, len(t)) if noise else np.zeros(len(t))
    for begin, end in spans:
        inside = (t >= begin) & (t < end)
        pcm[inside] += 0.4 * np.sin(2 * np.pi * 700 * t[inside])
    return pcm.astype(np.float32)


def test_spectrum_and_back_is_exact() -> None:
    pcm = np.random.default_rng(1).normal(0, 0.2, 12_345).astype(np.float32)
    assert np.allclose(istft(stft(pcm), len(pcm)), pcm, atol=1e-5)


def test_silences_are_cut() -> None:
    cut = cut_silence(bursts((1.0, 1.5), (4.0, 4.5)))
    assert abs(len(cut) / 16_000 - 1.2) < 0.1  # two bursts and 0.2 s between them
    assert np.array_equal(cut_silence(np.zeros(16_000, np.float32)), np.zeros(16_000, np.float32))


def test_noise_is_taken_away_and_the_sound_kept() -> None:
    noisy, clean = bursts((2.0, 4.0), noise=0.02), bursts((2.0, 4.0))
    profile = noise_profile(noisy)
    assert profile is not None
    made = denoise(noisy, profile)
    quiet, loud = slice(16_000, 28_000), slice(36_000, 60_000)
    assert rms(made[quiet]) < 0.35 * rms(noisy[quiet])
    assert abs(rms(made[loud]) / rms(clean[loud]) - 1) < 0.1


def test_noise_alone_is_left_alone() -> None:
    """Rain is all noise: there is nothing to tell it from."""
    assert noise_profile(bursts(noise=0.1)) is None


def test_the_dense_span_begins_where_the_sound_does() -> None:
    pcm = bursts((0.5, 0.7), (3.0, 5.0), noise=0.0005)
    begin, end = dense_span(pcm, 1.5)
    assert abs(begin / 16_000 - 3.0) < 0.05
    assert (end - begin) == 24_000


@pytest.mark.parametrize("longest_s", [float("nan"), float("inf"), 0.0, -1.0, 0.019])
def test_nothing_is_no_length_to_keep(longest_s: float) -> None:
    with pytest.raises(ValueError, match="not a length to keep"):
        preprocess(bursts((1.0, 1.5)), longest_s)
    assert len(preprocess(bursts((1.0, 1.5)), 0.02)) == HALF_CHUNK


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 60_000))
def test_aligned_to_half_a_chunk(length: int) -> None:
    made = align(np.ones(length, np.float32))
    assert len(made) % HALF_CHUNK == 0
    assert len(made) > 0
    assert abs(len(made) - length) < HALF_CHUNK
    assert made[0] < 0.1 or length == 1


def test_smoothing_keeps_the_sound() -> None:
    pcm = bursts((1.0, 5.0))
    assert abs(rms(smooth(pcm)) / rms(pcm) - 1) < 0.1


@pytest.mark.parametrize("seconds", [0.11, 0.5, 2.0, 11.0])
def test_whatever_comes_in(seconds: float) -> None:
    made = preprocess(np.random.default_rng(1).normal(0, 0.1, int(seconds * 16_000)).astype(np.float32), 3.0)
    assert len(made) % HALF_CHUNK == 0
    assert 0 < len(made) <= 3.2 * 16_000
    assert np.isfinite(made).all()


def test_a_real_sneeze_and_its_picture(tmp_path: Path) -> None:
    made = steps(decode(SNEEZE)[0])
    assert [step.name for step in made] == ["recording", "silence", "denoise", "dense", "align", "smooth"]
    assert 0.4 < len(made[-1].pcm) / 16_000 < 1.6  # of five seconds
    pytest.importorskip("matplotlib", reason="pictures need the extra soundflow")
    steps_picture(made, tmp_path / "steps.png", "a sneeze")
    assert (tmp_path / "steps.png").read_bytes().startswith(b"\x89PNG")
