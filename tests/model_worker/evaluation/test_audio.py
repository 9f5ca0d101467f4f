from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from calls.audio import CHUNK_BYTES, SAMPLE_RATE
from model_worker.evaluation.audio import AudioError, Channel, chunks_of, decode, samples, stream
from tests.model_worker.evaluation.sounds import save, tone


def played(path: Path, channel: Channel = "wideband") -> npt.NDArray[np.float64]:
    chunks = list(stream(path, channel))
    assert {len(chunk) for chunk in chunks} == {CHUNK_BYTES}
    assert len(chunks) == chunks_of(samples(path))
    return np.frombuffer(b"".join(chunks), "<i2").astype(np.float64)


def power(pcm: npt.NDArray[Any], hertz: float) -> float:
    """The share of the power within 20 Hz of a frequency."""
    spectrum = np.abs(np.fft.rfft(pcm)) ** 2
    at = np.fft.rfftfreq(len(pcm), 1 / SAMPLE_RATE)
    return float(spectrum[np.abs(at - hertz) < 20].sum() / spectrum.sum())


@pytest.mark.parametrize("rate", [8_000, 16_000, 22_050, 44_100, 48_000])
@pytest.mark.parametrize("channels", [1, 2])
def test_any_rate_and_channels(tmp_path: Path, rate: int, channels: int) -> None:
    pcm = np.repeat(tone(1.0, rate), channels)
    path = save(tmp_path / "a.wav", pcm, rate, channels)
    heard = np.concatenate(list(decode(path)))
    assert len(heard) == pytest.approx(SAMPLE_RATE, abs=64)
    assert power(heard, 440) > 0.98


def test_a_recording_whose_author_is_written_in_latin_1(tmp_path: Path) -> None:
    path = save(tmp_path / "a.wav", tone(1.0))
    said = b"INFOICOP" + (6).to_bytes(4, "little") + "© Me\0".encode("latin-1") + b"\0"
    content = path.read_bytes() + b"LIST" + len(said).to_bytes(4, "little") + said
    path.write_bytes(content[:4] + (len(content) - 8).to_bytes(4, "little") + content[8:])
    assert samples(path) == pytest.approx(16_000, abs=64)


@pytest.mark.parametrize("seconds", [0.001, 0.2, 0.6, 1.0])
def test_a_room_before_and_after(tmp_path: Path, seconds: float) -> None:
    pcm = played(save(tmp_path / "a.wav", tone(seconds)))
    assert np.array_equal(pcm[16_000 : 16_000 + round(seconds * 16_000)], tone(seconds))
    before, after = pcm[:16_000], pcm[16_000 + round(seconds * 16_000) :]
    assert 2.0 <= len(after) / 16_000 < 2.4
    for room in (before, after):
        assert 5 < np.std(room) < 40
        assert np.abs(room).max() < 200
    assert not np.array_equal(before, after[:16_000])


def test_the_same_every_time_but_not_for_another_file(tmp_path: Path) -> None:
    one, other = save(tmp_path / "a.wav", tone(0.5)), save(tmp_path / "b.wav", tone(0.5))
    assert np.array_equal(played(one), played(one))
    assert not np.array_equal(played(one), played(other))


def test_a_telephone_has_no_high_frequencies_and_few_levels(tmp_path: Path) -> None:
    high = played(save(tmp_path / "high.wav", tone(1.0, hertz=6_000)), "g711")
    assert np.std(high[17_000:31_000]) < 100
    low = played(save(tmp_path / "low.wav", tone(1.0, hertz=1_000)), "g711")
    assert np.std(low[17_000:31_000]) == pytest.approx(0.3 * 32767 / 2**0.5, rel=0.03)
    assert power(low[17_000:31_000], 1_000) > 0.99
    assert np.any(low[:16_000])


def test_what_cannot_be_played_is_named(tmp_path: Path) -> None:
    for name, content, says in (
        ("empty.wav", b"", "is empty"),
        ("text.wav", b"this is no audio, it only says so", "text.wav: not audio"),
        ("header.wav", save(tmp_path / "whole.wav", tone(0.0)).read_bytes(), "header.wav: "),
        ("cut.wav", save(tmp_path / "whole.wav", tone(1.0)).read_bytes()[:20], "cut.wav: "),
    ):
        path = tmp_path / name
        path.write_bytes(content)
        with pytest.raises(AudioError, match=says):
            samples(path)
    with pytest.raises(AudioError, match="no such file"):
        samples(tmp_path / "none.wav")
    with pytest.raises(AudioError, match="no such file"):
        samples(tmp_path)


def test_an_hour_is_read_in_blocks(tmp_path: Path) -> None:
    path = save(tmp_path / "long.wav", np.zeros(8_000 * 3_600, np.int16), 8_000)
    blocks = decode(path)
    assert len(next(blocks)) < SAMPLE_RATE
    assert 3_599.9 < sum(map(len, blocks), 0) / SAMPLE_RATE < 3_600.1
