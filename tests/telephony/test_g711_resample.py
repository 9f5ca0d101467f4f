"""G.711 and the streaming resampler: table properties, exact frame sizes, delay, and what passes and what does not."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from calls import g711
from calls.audio import FRAME_BYTES
from calls.resample import Resampler
from telephony.codecs import G711Decoder, G711Encoder, OpusDecoder, OpusEncoder, is_quiet

LAWS: list[g711.Law] = ["mulaw", "alaw"]
RATES = [(8000, 16000), (16000, 8000), (48000, 16000), (16000, 48000)]


def tone(hertz: float, rate: int, seconds: float = 1.0, amplitude: float = 8000.0) -> np.ndarray:
    t = np.arange(int(rate * seconds)) / rate
    return (amplitude * np.sin(2 * np.pi * hertz * t)).astype(np.int16)


def stream(resampler: Resampler, samples: np.ndarray, step: int) -> np.ndarray:
    return np.concatenate([resampler(samples[at : at + step]) for at in range(0, len(samples), step)])


def test_known_values_of_the_recommendation() -> None:
    # The ends and the zeros of G.711's tables 1a, 1b, 2a, 2b, scaled to 16 bits.
    assert g711.decode(bytes([0x00, 0x80, 0x7F, 0xFF]), "mulaw").tolist() == [-32124, 32124, 0, 0]
    assert g711.decode(bytes([0x2A, 0xAA, 0x55, 0xD5]), "alaw").tolist() == [-32256, 32256, -8, 8]
    assert g711.encode(np.zeros(1, np.int16), "mulaw") == bytes([g711.SILENCE["mulaw"]])


@pytest.mark.parametrize("law", LAWS)
def test_every_code_survives_a_round_trip(law: g711.Law) -> None:
    codes = bytes(code for code in range(256) if (law, code) != ("mulaw", 0x7F))
    assert g711.encode(g711.decode(codes, law), law) == codes


@pytest.mark.parametrize("law", LAWS)
def test_no_sample_has_a_nearer_code(law: g711.Law) -> None:
    samples = np.arange(-32768, 32768, 7, dtype=np.int16)
    values = g711.decode(bytes(range(256)), law).astype(np.int32)
    got = np.abs(g711.decode(g711.encode(samples, law), law).astype(np.int32) - samples)
    best = np.abs(values[None, :] - samples[:, None].astype(np.int32)).min(axis=1)
    assert (got == best).all()


@given(st.binary(max_size=400))
def test_any_payload_decodes(payload: bytes) -> None:
    for law in LAWS:
        assert len(g711.decode(payload, law)) == len(payload)


@pytest.mark.parametrize(("rate_in", "rate_out"), RATES)
def test_twenty_ms_in_twenty_ms_out_and_a_short_delay(rate_in: int, rate_out: int) -> None:
    resampler = Resampler(rate_in, rate_out)
    assert 0 < resampler.delay_s <= 0.002
    assert all(len(resampler(np.ones(rate_in // 50, np.int16))) == rate_out // 50 for _ in range(3))
    out = stream(Resampler(rate_in, rate_out), tone(1000, rate_in), rate_in // 50)
    late = 8000 * np.sin(2 * np.pi * 1000 * (np.arange(len(out)) / rate_out - resampler.delay_s))
    settled = slice(rate_out // 10, None)
    error = out[settled] - late[settled]
    assert 10 * np.log10((late[settled] ** 2).mean() / (error**2).mean()) > 60  # dB


@pytest.mark.parametrize(("rate_in", "rate_out"), RATES)
def test_the_cut_of_the_stream_does_not_matter(rate_in: int, rate_out: int) -> None:
    samples = np.random.default_rng(1).integers(-9000, 9000, rate_in // 5).astype(np.int16)
    whole = Resampler(rate_in, rate_out)(samples)
    assert (stream(Resampler(rate_in, rate_out), samples, rate_in // 50) == whole).all()
    assert (stream(Resampler(rate_in, rate_out), samples, rate_in // 200) == whole).all()


@pytest.mark.parametrize(("rate_in", "rate_out", "hertz"), [(16000, 8000, 4700.0), (48000, 16000, 9000.0)])
def test_what_cannot_be_kept_is_not_folded_back(rate_in: int, rate_out: int, hertz: float) -> None:
    out = stream(Resampler(rate_in, rate_out), tone(hertz, rate_in), rate_in // 50)[rate_out // 10 :]
    assert np.sqrt((out.astype(float) ** 2).mean()) < 8000 / 1.414 / 300  # -50 dB


def test_loud_input_is_clipped_not_wrapped() -> None:
    square = np.where(np.arange(1600) % 16 < 8, 32767, -32768).astype(np.int16)
    out = Resampler(8000, 16000)(square)
    assert (np.sign(out[200::32][:20]) == np.sign(out[200])).all()


def test_bad_rates_and_lengths_are_refused() -> None:
    with pytest.raises(ValueError, match="whole factor"):
        Resampler(44100, 16000)
    with pytest.raises(ValueError, match="multiple"):
        Resampler(8000, 16000)(np.zeros(33, np.int16))
    with pytest.raises(ValueError, match="160"):
        G711Decoder().decode(b"\xff" * 159)


def test_codecs_carry_frames() -> None:
    speech = tone(440, 16000).tobytes()
    frames = [speech[at : at + FRAME_BYTES] for at in range(0, len(speech), FRAME_BYTES)]
    narrow, wide = (G711Encoder("alaw"), G711Decoder("alaw")), (OpusEncoder(), OpusDecoder())
    through_g711 = b"".join(narrow[1].decode(narrow[0].encode(frame)) for frame in frames)
    through_opus = b"".join(heard for frame in frames for heard in wide[1].decode(wide[0].encode(frame)))
    for heard in (through_g711, through_opus):
        assert len(heard) == len(speech)
        spectrum = np.abs(np.fft.rfft(np.frombuffer(heard, np.int16)[3200:12800]))
        assert abs(int(spectrum.argmax()) * 16000 / 9600 - 440) < 3


@given(st.binary(max_size=200))
def test_opus_survives_any_payload(payload: bytes) -> None:
    assert all(len(frame) == FRAME_BYTES for frame in OpusDecoder().decode(payload))


def test_quiet() -> None:
    assert is_quiet(bytes(FRAME_BYTES))
    assert not is_quiet(tone(440, 16000, 0.02).tobytes())
