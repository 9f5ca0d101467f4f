from __future__ import annotations

import wave
from pathlib import Path

import numpy as np
import pytest

from soundflow import clips
from soundflow.clips import ClipError, Rules, decode, describe, scan

ROOT = Path(__file__).resolve().parents[1]
GARAGE = ROOT.parent / "offhook" / "demo" / "garage-call" / "caller.wav"


def write(path: Path, pcm: np.ndarray, rate: int = 16_000, channels: int = 1) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with wave.open(str(path), "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(pcm.astype("<i2").tobytes())
    return path


def tone(seconds: float, rate: int = 16_000, hz: float = 440.0) -> np.ndarray:
    return 8_000 * np.sin(2 * np.pi * hz * np.arange(int(seconds * rate)) / rate)


def test_a_recording_of_8_khz() -> None:
    pcm, notes = decode(GARAGE)
    assert abs(len(pcm) / 16_000 - 237.56) < 0.1
    assert pcm.dtype == np.float32
    assert 0.05 < float(np.abs(pcm).max()) < 1.1
    assert notes == ["8000 Hz, so nothing above 4000 Hz in it"]


def test_stereo_is_mixed(tmp_path: Path) -> None:
    left = tone(1.0)
    pcm, notes = decode(write(tmp_path / "s.wav", np.stack([left, np.zeros_like(left)], 1).reshape(-1), channels=2))
    assert notes == ["2 channels, mixed to one"]
    assert abs(len(pcm) - 16_000) < 100
    assert 0.05 < float(np.abs(pcm).max()) < 0.3


def test_an_hour_is_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "hour.wav", np.resize(tone(1.0, 4_000), 3_600 * 4_000), rate=4_000)
    monkeypatch.setattr(clips, "LONGEST_S", 20.0)  # as 600 s does, in a tenth of a second
    pcm, notes = decode(path)
    assert len(pcm) == 20 * 16_000
    assert any("longer than" in note for note in notes)


@pytest.mark.parametrize(
    ("content", "said"),
    [(b"", "cannot be read"), (b"RIFF nonsense" * 50, "cannot be read"), (None, "nothing but silence")],
)
def test_clips_that_cannot_be_used(tmp_path: Path, content: bytes | None, said: str) -> None:
    path = tmp_path / "bad.wav"
    write(path, np.zeros(16_000)) if content is None else path.write_bytes(content)
    with pytest.raises(ClipError, match=said) as error:
        decode(path)
    assert "bad.wav" in str(error.value)
    assert "\n" not in str(error.value)


def test_an_empty_clip(tmp_path: Path) -> None:
    with pytest.raises(ClipError, match=r"empty|cannot be read"):
        decode(write(tmp_path / "empty.wav", np.zeros(0)))


def test_a_cut_off_recording_is_used_as_far_as_it_goes(tmp_path: Path) -> None:
    source = ROOT / "data" / "noises" / "1-62849-A.ogg"
    whole, _ = decode(source)
    path = tmp_path / "cut.ogg"
    path.write_bytes(source.read_bytes()[: source.stat().st_size // 2])
    pcm, _ = decode(path)
    assert 0.1 * len(whole) < len(pcm) < len(whole)


def test_a_wav_file_that_was_cut_off_is_told(tmp_path: Path) -> None:
    path = write(tmp_path / "cut.wav", tone(4.0))
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 4])
    pcm, notes = decode(path)
    assert abs(len(pcm) - 16_000) < 100
    assert notes == ["shorter than its header says, used until there"]


@pytest.mark.parametrize("length", [0, 0x7FFFF024, 0xFFFFFFFF])
def test_a_wav_file_out_of_a_pipe_says_nothing_of_its_length(tmp_path: Path, length: int) -> None:
    """0 and ffmpeg's are what RIFF has for it, the other is espeak-ng's."""
    path = write(tmp_path / "piped.wav", tone(1.0))
    whole = path.read_bytes()
    path.write_bytes(whole[:4] + length.to_bytes(4, "little") + whole[8:])
    pcm, notes = decode(path)
    assert abs(len(pcm) - 16_000) < 100
    assert not notes


def test_a_recording_whose_author_is_written_in_latin_1(tmp_path: Path) -> None:
    path = write(tmp_path / "old.wav", tone(1.0))
    said = b"INFOICOP" + (6).to_bytes(4, "little") + "© Me\0".encode("latin-1") + b"\0"
    content = path.read_bytes() + b"LIST" + len(said).to_bytes(4, "little") + said
    path.write_bytes(content[:4] + (len(content) - 8).to_bytes(4, "little") + content[8:])
    pcm, notes = decode(path)
    assert abs(len(pcm) - 16_000) < 100
    assert not notes


def test_scan_goes_on_after_a_bad_clip(tmp_path: Path) -> None:
    write(tmp_path / "baby_cry" / "1-11-A.wav", tone(1.0))
    write(tmp_path / "rain" / "4-12-A.wav", tone(1.0))
    (tmp_path / "rain" / "2-13-A.wav").write_bytes(b"broken")
    write(tmp_path / "rain" / "5-14-A.wav", tone(1.0))
    found = scan(tmp_path, licence="CC0")
    assert [(c.label, c.respond, c.source, c.licence) for c in found.clips] == [
        ("baby_cry", True, "11", "CC0"),
        ("rain", False, "12", "CC0"),
    ]
    assert sum("2-13-A.wav" in note for note in found.notes) == 1
    assert any("1 recordings kept apart" in note for note in found.notes)
    (tmp_path / "none").mkdir()
    with pytest.raises(ClipError, match="no recording that can be used"):
        scan(tmp_path / "none")


def test_a_fingerprint_changes_with_every_recording(tmp_path: Path) -> None:
    """Also with one that is replaced by another as long."""
    write(tmp_path / "rain" / "1-12-A.wav", tone(1.0))
    before = scan(tmp_path).fingerprint()
    assert scan(tmp_path).fingerprint() == before
    write(tmp_path / "rain" / "1-12-A.wav", tone(1.0, hz=450.0))
    replaced = scan(tmp_path).fingerprint()
    write(tmp_path / "rain" / "1-13-A.wav", tone(1.0))
    assert len({before, replaced, scan(tmp_path).fingerprint()}) == 3


def test_names_of_esc_and_of_digits() -> None:
    folder = Path("/x")

    def split(path: str, group: str = "sound") -> str | None:
        clip = describe(folder / path, folder, group, "", Rules())
        return clip.split if clip else None

    assert split("dog/4-100-A.ogg") == "test"
    assert split("dog/5-100-A.ogg") is None
    assert split("crying_baby/1-100-A-20.wav") in ("train", "dev")
    assert split("7_theo_3.wav", "digit") == "test"
    assert split("7_nicolas_3.wav", "digit") == "dev"
    assert split("7_george_3.wav", "digit") == "train"
    assert split("7_yweweler_3.wav", "digit") is None
    clip = describe(folder / "crying_baby/1-100-A-20.wav", folder, "sound", "", Rules())
    assert clip is not None
    assert clip.label == "baby_cry"
    digit = describe(folder / "7_george_3.wav", folder, "digit", "", Rules())
    assert digit is not None
    assert digit.text == "seven"


def test_takes_of_one_source_stay_together() -> None:
    folder = Path("/x")
    for source in range(300):
        splits = set()
        for take in "ABC":
            clip = describe(folder / f"dog/1-{source}-{take}.ogg", folder, "sound", "", Rules())
            assert clip is not None
            splits.add(clip.split)
        assert len(splits) == 1


def test_a_name_says_whose_take_it_is() -> None:
    """SOURCE~TAKE: of one source, in whatever class, and so in one split."""
    folder = Path("/x")
    splits = set()
    for source in (f"minetest-{n}" for n in range(200)):
        one, other, third = (
            describe(folder / name, folder, "sound", "", Rules())
            for name in (f"rain/{source}~drops-1.ogg", f"rain/{source}~drops-2.wav", f"wind/{source}~a~b.ogg")
        )
        assert one is not None
        assert other is not None
        assert third is not None
        assert one.source == other.source == third.source == source
        assert one.split == other.split == third.split
        assert len({one.id, other.id, third.id}) == 3
        splits.add(one.split)
    assert splits == {"train", "dev", "test"}
    alone = describe(folder / "rain/~drops.ogg", folder, "sound", "", Rules())
    assert alone is not None
    assert alone.source == "~drops"


def test_what_many_have_in_common_is_said_once(tmp_path: Path) -> None:
    for number in range(21):
        write(tmp_path / "many" / f"a~{number}.wav", tone(0.2, 8_000), rate=8_000)
    write(tmp_path / "few" / "b~1.wav", tone(0.2, 4_000), rate=4_000)
    told: list[tuple[int, int]] = []
    found = scan(tmp_path, progress=lambda done, total, what: told.append((done, total)))
    assert [note.removeprefix(str(tmp_path)) for note in found.notes] == [
        "/few/b~1.wav: 4000 Hz, so nothing above 2000 Hz in it",
        ": 21 recordings: 8000 Hz, so nothing above 4000 Hz in it",
    ]
    assert told == [(number, 22) for number in range(1, 23)]
