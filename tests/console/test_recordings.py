"""The waveform, from real files and from broken ones."""

from __future__ import annotations

import struct
import wave
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from console.errors import BadRecording
from console.recordings import PeaksCache, base_peaks, locate, open_wav


def write(path: Path, samples: np.ndarray, rate: int = 16000) -> Path:
    with wave.open(str(path), "wb") as file:
        file.setnchannels(samples.shape[1])
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(samples.astype("<i2").tobytes())
    return path


def test_a_click_is_seen_where_it_is(tmp_path: Path) -> None:
    samples = np.zeros((16000 * 65, 2))
    samples[16000 * 61 + 5, 0] = 30000
    samples[16000 * 7, 1] = -20000
    path = write(tmp_path / "a.wav", samples)
    view = PeaksCache().view(path, 650)
    left, right = view["channels"]
    assert int(np.argmax(left["max"])) == 610
    assert int(np.argmin(right["min"])) == 70
    assert left["max"][610] == pytest.approx(30000 / 32768, abs=1e-4)
    near = PeaksCache().view(path, 400, 60.999, 61.01)
    assert sum(high > 0.9 for high in near["channels"][0]["max"]) == 1


@given(count=st.integers(1, 3000), bins=st.integers(1, 900), begin=st.floats(0, 0.3), length=st.floats(0, 0.3))
@settings(max_examples=60, deadline=None)
def test_no_sample_is_left_out(
    tmp_path_factory: pytest.TempPathFactory, count: int, bins: int, begin: float, length: float
) -> None:
    samples = np.random.default_rng(count).integers(-32768, 32767, (count, 2))
    path = write(tmp_path_factory.getbasetemp() / "peaks.wav", samples)
    view = PeaksCache().view(path, bins, begin, begin + length)
    start, end = round(view["from_s"] * 16000), round(view["to_s"] * 16000)
    assert view["bins"] <= bins
    if end > start:
        assert max(view["channels"][0]["max"]) >= samples[start:end, 0].max() / 32768 - 1e-3
        assert min(view["channels"][1]["min"]) <= samples[start:end, 1].min() / 32768 + 1e-3


def test_a_writer_that_was_killed_leaves_what_is_there(tmp_path: Path) -> None:
    path = write(tmp_path / "cut.wav", np.ones((16000, 2)) * 1000)
    raw = bytearray(path.read_bytes())
    for told in (0, 0xFFFFFFFF, 10_000_000):
        raw[40:44] = struct.pack("<I", told)
        path.write_bytes(raw[: 44 + 4 * 8000 + 3])
        wav = open_wav(path)
        assert wav.samples == 8000
        assert base_peaks(wav).shape == (25, 2, 2)


@pytest.mark.parametrize(
    "raw", [b"", b"RIFF", b"RIFF\0\0\0\0WAVEdata\0\0\0\0", b"RIFF\0\0\0\0WAVEfmt \x02\0\0\0ab", b"x" * 100]
)
def test_what_is_no_recording_is_refused(tmp_path: Path, raw: bytes) -> None:
    path = tmp_path / "bad.wav"
    path.write_bytes(raw)
    with pytest.raises(BadRecording):
        open_wav(path)


def test_a_changed_file_is_read_again(tmp_path: Path) -> None:
    cache = PeaksCache(capacity=1)
    path = write(tmp_path / "a.wav", np.zeros((1600, 1)))
    assert max(cache.view(path, 5)["channels"][0]["max"]) == 0
    write(path, np.ones((3200, 1)) * 16384)
    assert max(cache.view(path, 5)["channels"][0]["max"]) == 0.5


def test_only_inside_the_folder(tmp_path: Path) -> None:
    folder = tmp_path / "recordings"
    folder.mkdir()
    (tmp_path / "outside.wav").write_bytes(b"")
    (folder / "in.wav").write_bytes(b"")
    assert locate(folder, "in.wav").name == "in.wav"
    for bad in ("../outside.wav", str(tmp_path / "outside.wav"), "nothing.wav", ".", "a\0b"):
        with pytest.raises(BadRecording):
            locate(folder, bad)
