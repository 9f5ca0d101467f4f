"""Any WAV becomes 16 kHz mono s16; what cannot is refused with a reason."""

from __future__ import annotations

import struct
import wave
from pathlib import Path

import numpy as np
import pytest

from offhook.phone import wav


def write_wav(path: Path, rate: int, channels: int, seconds: float, width: int = 2) -> Path:
    t = np.arange(int(rate * seconds)) / rate
    tone = np.sin(2 * np.pi * 440 * t)
    samples = np.repeat((tone * 8000).astype("<i2")[:, None], channels, axis=1).tobytes()
    if width == 1:
        samples = (tone * 60 + 128).astype("u1").repeat(channels).tobytes()
    with wave.open(str(path), "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(width)
        file.setframerate(rate)
        file.writeframes(samples)
    return path


@pytest.mark.parametrize(
    ("rate", "channels", "width"), [(16_000, 1, 2), (8_000, 1, 2), (44_100, 2, 2), (48_000, 2, 2), (11_025, 1, 1)]
)
def test_any_rate_and_channels_become_16_khz_mono(tmp_path: Path, rate: int, channels: int, width: int) -> None:
    pcm = wav.load(write_wav(tmp_path / "a.wav", rate, channels, 1.5, width))
    samples = np.frombuffer(pcm, dtype="<i2")
    assert abs(len(samples) - 24_000) <= 40
    spectrum = np.abs(np.fft.rfft(samples[:16_000]))
    assert abs(int(spectrum.argmax()) - 440) <= 1
    assert 5_000 < np.abs(samples).max() < 17_000


def test_mu_law_wav_is_read(tmp_path: Path) -> None:
    data = bytes([0xFF] * 8000)
    fmt = struct.pack("<HHIIHHH", 7, 1, 8000, 8000, 1, 8, 0)
    body = b"WAVEfmt " + struct.pack("<I", len(fmt)) + fmt + b"data" + struct.pack("<I", len(data)) + data
    path = tmp_path / "mu.wav"
    path.write_bytes(b"RIFF" + struct.pack("<I", len(body)) + body)
    assert abs(len(wav.load(path)) - 32_000) <= 80


def test_what_cannot_be_played_is_refused_with_a_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    empty, text, hollow = tmp_path / "empty.wav", tmp_path / "text.wav", tmp_path / "hollow.wav"
    empty.write_bytes(b"")
    text.write_text("this is not a sound")
    write_wav(hollow, 8000, 1, 0)
    torn = tmp_path / "torn.wav"
    torn.write_bytes(write_wav(tmp_path / "whole.wav", 8000, 1, 1).read_bytes()[:20])
    for path, reason in [
        (tmp_path / "none.wav", "No such file"),
        (tmp_path, "directory"),
        (empty, "empty"),
        (text, "not a WAV"),
        (hollow, "no audio"),
        (torn, "cannot be read|no audio"),
    ]:
        with pytest.raises(wav.WavError, match=reason):
            wav.load(path)
    monkeypatch.setattr(wav, "MAX_S", 1)
    with pytest.raises(wav.WavError, match="longer"):
        wav.load(write_wav(tmp_path / "long.wav", 8000, 1, 1.2))
