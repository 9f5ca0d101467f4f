from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from calls.audio import CHUNK_SAMPLES, SAMPLE_RATE
from calls.model import Mode
from calls.settings import Settings
from soundflow import config
from soundflow.clips import DIGITS, Clips, Rules, scan
from soundflow.commands import wake as command
from soundflow.errors import SoundflowError, SpeechError
from soundflow.items import EITHER, RESPOND, SILENT, Item, Turn
from soundflow.material import Material
from soundflow.shards import read
from soundflow.speech import Cast, NotUnderstood, Said, Speech
from soundflow.streamaudio import write_wav
from soundflow.wake import (
    DIGIT,
    MUSIC,
    QUIET,
    SOUND,
    SPEECH,
    SPOKEN,
    Heard,
    _apart,
    _choose,
    _elsewhere,
    _throughout,
    active,
    in_mode,
    line,
    stream,
)
from tests.soundflow.making import same

SEEDS = range(40)


def noise(seed: int, seconds: float = 1.0) -> np.ndarray:
    return (0.1 * np.random.default_rng(seed).standard_normal(int(seconds * SAMPLE_RATE))).astype(np.float32)


@pytest.fixture(scope="module")
def pools() -> dict[str, list[Heard]]:
    """Few alarms, much rain: as unequal as what can be found."""
    sounds = [Heard(SOUND, "siren", "", noise(1), "siren-1"), Heard(SOUND, "baby_cry", "", noise(2), "baby-1")]
    sounds += [Heard(SOUND, "rain", "", noise(10 + n), f"rain-{n}") for n in range(30)]
    sounds += [Heard(SOUND, "cow", "", noise(50 + n), f"cow-{n}") for n in range(2)]
    sounds += [Heard(SOUND, label, "", noise(60 + n), label) for n, label in enumerate(("wind", "frog", "crow"))]
    digits = [Heard(DIGIT, word, word, noise(100 + n, 0.5), "theo") for n, word in enumerate(("one", "two"))]
    speech = [Heard(SPEECH, "speech", "Hello?", noise(200, 1.5), "voice")]
    return {SOUND: sounds, DIGIT: digits, SPEECH: speech, QUIET: [Heard(QUIET, "busy", "", noise(300, 2.0), "synth")]}


@pytest.fixture(scope="module")
def made(pools: dict[str, list[Heard]]) -> list[Item]:
    return [stream(f"w-{seed}", pools, seed, "train") for seed in SEEDS]


def test_a_stream_says_what_is_right_at_every_chunk(made: list[Item]) -> None:
    for item in made:
        assert item.split == "train"
        assert len(item.audio) == int(28 * SAMPLE_RATE) // CHUNK_SAMPLES * CHUNK_SAMPLES
        assert set(np.unique(item.labels())) <= {RESPOND, SILENT, EITHER}
        assert int((item.labels() == RESPOND).sum()) == sum(turn.respond for turn in item.turns)
        for turn in item.turns:
            assert turn.sources
            assert 0 <= turn.begin_s < turn.end_s <= 28.0
            assert bool(turn.reply) == turn.respond
            if turn.respond:
                assert turn.label in ("siren", "baby_cry", "one", "two", "speech")
                assert turn.early == (turn.kind == SOUND)
                assert turn.kind != SPEECH or turn.reply == SPOKEN
                assert turn.kind != DIGIT or turn.reply == turn.label
    kinds = {turn.kind for item in made for turn in item.turns}
    assert kinds == {SOUND, DIGIT, SPEECH, QUIET}
    assert {item.channel for item in made} == {"g711", "wideband"}
    silent = [item for item in made if not any(turn.respond for turn in item.turns)]
    assert 0.1 * len(made) < len(silent) < 0.7 * len(made)


def test_turns_are_where_something_is_heard(made: list[Item]) -> None:
    """Louder in a turn than in the quiet before the first one."""
    looked = 0
    for item in made:
        first = item.turns[0]
        if first.begin_s < 0.5:
            continue
        audio = item.audio.astype(np.float64)
        before = audio[: int((first.begin_s - 0.1) * SAMPLE_RATE)].std()
        during = audio[int(first.begin_s * SAMPLE_RATE) : int(first.end_s * SAMPLE_RATE)].std()
        assert during > before
        looked += 1
    assert looked > 10


def test_the_same_seed_is_the_same_item(pools: dict[str, list[Heard]], made: list[Item]) -> None:
    for seed in (0, 7, 23):
        assert same(made[seed], stream(f"w-{seed}", pools, seed, "train"))
        assert not np.array_equal(made[seed].audio, made[seed + 1].audio)


def test_of_two_responses_in_one_chunk_one_is_given() -> None:
    one = Turn(SOUND, 1.0, 2.1, True, "a siren", "siren", "a siren", early=True)
    silent = replace(one, begin_s=2.1, end_s=2.15, respond=False, reply="", early=False)
    other, third = replace(one, begin_s=2.2, end_s=2.3), replace(one, begin_s=2.2, end_s=2.5)
    kept = _apart([silent, one, other, third])
    assert [turn.respond for turn in kept] == [False, True, False, True]
    assert (kept[2].reply, kept[2].early) == ("", False)
    assert [turn.end_s for turn in kept] == [2.15, 2.1, 2.3, 2.5]


def test_a_mode_wants_some_of_it(made: list[Item]) -> None:
    def responded(mode: Mode) -> set[str]:
        return {turn.kind for item in made for turn in in_mode(item, mode).turns if turn.respond}

    assert responded(Mode.ANSWER) == {SOUND, DIGIT, SPEECH}
    assert responded(Mode.TRANSCRIBE) == {DIGIT, SPEECH}
    assert responded(Mode.ASSIST) == {SOUND}
    for item in made:
        assert same(in_mode(item, Mode.ANSWER), item)
        other = in_mode(item, Mode.TRANSCRIBE)
        assert other.mode == Mode.TRANSCRIBE
        assert other.audio is item.audio
        assert [turn.label for turn in other.turns] == [turn.label for turn in item.turns]
        assert not any(turn.reply or turn.early for turn in other.turns if not turn.respond)


def test_half_of_the_sounds_deserve_a_response(pools: dict[str, list[Heard]]) -> None:
    """Though 2 recordings of 37 and 2 classes of 7 do. Of the others a class is chosen by the root of its number."""
    rng = np.random.default_rng(3)
    chosen = [_choose(rng, pools, SOUND, hush=False) for _ in range(2_000)]
    deserving = [one for one in chosen if one.respond]
    assert 0.46 < len(deserving) / len(chosen) < 0.54
    assert 0.44 < sum(one.label == "siren" for one in deserving) / len(deserving) < 0.56
    rain = sum(one.label == "rain" for one in chosen) / (len(chosen) - len(deserving))
    assert abs(rain - 30**0.5 / (30**0.5 + 2**0.5 + 3)) < 0.05
    assert {one.source for one in chosen} == {one.source for one in pools[SOUND]}


def test_what_is_chosen_when_there_is_little(pools: dict[str, list[Heard]]) -> None:
    rng = np.random.default_rng(4)
    for _ in range(200):
        assert not _choose(rng, pools, SOUND, hush=True).respond
        assert _choose(rng, pools, DIGIT, hush=True).kind == QUIET  # all digits deserve one
        assert _choose(rng, {QUIET: pools[QUIET]}, SPEECH, hush=False).kind == QUIET
        alarms = {**pools, SOUND: pools[SOUND][:2]}
        assert _choose(rng, alarms, SOUND, hush=False).respond


def test_one_thing_from_beginning_to_end(pools: dict[str, list[Heard]]) -> None:
    music = [Heard(QUIET, MUSIC, "", noise(400 + n, seconds), f"music-{n}") for n, seconds in enumerate((3.0, 20.0))]
    carried, answered = Counter[str](), 0
    for seed in range(120):
        audio = np.zeros(20 * SAMPLE_RATE, np.float32)
        first, *said = _throughout(np.random.default_rng(seed), audio, {**pools, QUIET: [*pools[QUIET], *music]})
        carried[first.sources[0] if first.label == MUSIC else first.label] += 1
        assert (first.kind, first.begin_s, first.respond, first.reply) == (QUIET, 0.0, False, "")
        if first.label != "line_noise":
            levels = np.sqrt(np.square(audio[: int(first.end_s) * SAMPLE_RATE].reshape(-1, 8_000)).mean(axis=1))
            assert levels.min() > 0.2 * levels.max() > 0
        assert not said or first.end_s < 20.0
        assert all(turn.begin_s >= first.end_s and turn.kind in (SPEECH, DIGIT) and turn.respond for turn in said)
        answered += bool(said)
    assert {"busy", "rain", "line_noise", "music-1"} <= set(carried)
    assert not set(carried) & {"siren", "baby_cry", "music-0"}  # what deserves a response; a piece that is too short
    assert carried["music-1"] > 40
    assert 20 < answered < 60


def test_how_many_carry_one_thing_and_how_many_go_through_a_telephone(pools: dict[str, list[Heard]]) -> None:
    for telephone, channel in ((0.0, "wideband"), (1.0, "g711")):
        made = [stream("x", pools, seed, "train", carried=1.0, telephone_share=telephone) for seed in range(6)]
        assert {item.channel for item in made} == {channel}
        assert all(item.turns[0].kind == QUIET and item.turns[0].begin_s == 0.0 for item in made)
    streams = [stream("x", pools, seed, "train", carried=0.0) for seed in range(20)]
    assert all(turn.begin_s > 0.0 for item in streams for turn in item.turns)


def test_a_bad_line_is_never_the_same() -> None:
    lines = [line(np.random.default_rng(seed), 10 * SAMPLE_RATE) for seed in SEEDS]
    assert all(one.dtype == np.float32 and np.isfinite(one).all() and np.abs(one).max() < 1.5 for one in lines)
    steady = [float(np.abs(one).max() / (np.sqrt(np.square(one).mean()) + 1e-9)) for one in lines]
    assert sum(crest > 15 for crest in steady) > 10  # clicks stand out of the noise
    assert sum(crest < 8 for crest in steady) > 2  # on some lines there are none
    assert len(line(np.random.default_rng(1), 3)) == 3


def test_another_place_is_as_loud() -> None:
    changed = 0
    for seed in SEEDS:
        pcm = noise(seed, 0.7)
        other = _elsewhere(np.random.default_rng(seed), pcm)
        assert other.shape == pcm.shape
        assert other.dtype == np.float32
        assert np.sqrt(np.square(other).mean()) == pytest.approx(np.sqrt(np.square(pcm).mean()), rel=1e-3)
        changed += not np.array_equal(other, pcm)
    assert 0.25 * len(SEEDS) < changed < 0.75 * len(SEEDS)
    assert np.isfinite(_elsewhere(np.random.default_rng(1), np.zeros(4_000, np.float32))).all()


def test_where_a_recording_is_active() -> None:
    quiet = np.zeros(SAMPLE_RATE, np.float32)
    begin, end = active(np.concatenate([quiet, noise(1, 0.5), quiet]))
    assert begin == pytest.approx(1.0, abs=0.03)
    assert end == pytest.approx(1.5, abs=0.03)
    assert active(noise(1, 0.01)) == (0.0, 0.01)


@pytest.fixture
def tiny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """A configuration of two espeak voices and a folder of recordings, one class of which the policy does not know."""
    for name, value in (("_SYNTHETIC", 1), ("_MUSIC", 2), ("_SPOKEN", 2), ("_MADE", 2)):
        monkeypatch.setattr(command, name, value)
    home = tmp_path / "home"
    for label, takes in (("rain", 6), ("hammering", 2), ("siren", 6)):
        (home / "debian-sounds" / label).mkdir(parents=True)
        for take in range(takes):
            pcm = (20_000 * noise(take, 0.8)).astype(np.int16)
            write_wav(home / "debian-sounds" / label / f"{label}-{take}~a.wav", pcm)
    text = (config.FOLDER / "test.toml").read_text()
    begin, end = text.index("[voices]"), text.index("check = false")
    voices = '[voices]\ntrain = ["espeak:en-us+m1"]\ndev = ["espeak:en-gb+f3"]\ntest = ["espeak:en-us+f1"]\n'
    made = (text[:begin] + voices + text[end:]).replace("material = []", 'material = ["debian-sounds"]')
    path = tmp_path / "tiny.toml"
    path.write_text(made)
    return path, home


def test_the_command(tiny: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, home = tiny
    folder = tmp_path / "streams"
    arguments = [str(folder), "--config", str(path), "--home", str(home), "--items", "27", "--dev", "2"]
    assert command.main(arguments, Settings()) == 0
    assert capsys.readouterr().out == (
        "the sound policy says nothing of these recordings, so they are not used: hammering (2)\n"
    )
    train, dev = list(read(folder, "train", check=True)), list(read(folder, "dev", check=True))
    assert [len(train), len(dev)] == [27, 2]
    assert len({item.id for item in [*train, *dev]}) == 29
    heard = {turn.label for item in train for turn in item.turns}
    assert {"rain", "siren", "speech"} <= heard
    assert "hammering" not in heard
    sources = [
        {source for item in items for turn in item.turns for source in turn.sources if source != "synth"}
        for items in (train, dev)
    ]
    assert not {source for source in sources[0] & sources[1] if not source.startswith("synth/")}
    sums = {shard.name: hashlib.sha256(shard.read_bytes()).hexdigest() for shard in folder.glob("*.shard")}
    assert sorted(sums) == ["dev-00000.shard", "train-00000.shard", "train-00001.shard"]
    (folder / "train-00001.shard").unlink()
    assert command.main([*arguments, "--items", "26"], Settings()) == 0
    assert len(list(read(folder, "train"))) == 26
    torn = folder / "train-00000.shard"
    torn.write_bytes(torn.read_bytes()[:-1000])
    # More are asked for: the short shard is filled up. One that is damaged is made anew.
    assert command.main(arguments, Settings()) == 0
    assert sums == {shard.name: hashlib.sha256(shard.read_bytes()).hexdigest() for shard in folder.glob("*.shard")}


def test_a_voice_that_fails_ends_the_run(
    tiny: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was not understood is left out; a voice that fails might speak the next time."""
    path, home = tiny
    arguments = [str(tmp_path / "streams"), "--config", str(path), "--home", str(home), "--items", "1", "--dev", "0"]
    with monkeypatch.context() as patched:
        patched.setattr("soundflow.espeak._TIMEOUT_S", 0.0)
        with pytest.raises(SpeechError, match="took longer"):
            command.main(arguments, Settings())
    say = Speech.say

    def but_two(speech: Speech, text: str, voices: Sequence[str]) -> Said:
        if text == "two.":
            raise NotUnderstood(text)
        return say(speech, text, voices)

    monkeypatch.setattr(Speech, "say", but_two)
    cast = Cast(("espeak:en-us+m1",), ("espeak:en-gb+f3",), ("espeak:en-us+f1",))
    pools = command.pools_of(Material(Clips((), ()), Speech(home / "speech", Path("/nowhere")), cast), "train", 1)
    assert [one.text for one in pools[DIGIT]] == [digit for digit in DIGITS if digit != "two"]


def test_progress_is_told_for_all_that_is_read_and_said(tiny: tuple[Path, Path], tmp_path: Path) -> None:
    _, home = tiny
    clips = scan(home / "debian-sounds", rules=Rules(test_share=0.0, dev_share=0.0))
    speech = Speech(tmp_path / "speech", Path("/nowhere"))
    cast = Cast(("espeak:en-us+m1",), ("espeak:en-gb+f3",), ("espeak:en-us+f1",))
    told: list[tuple[int, int]] = []
    pools = command.pools_of(
        Material(clips, speech, cast), "train", 1, lambda done, total, what: told.append((done, total))
    )
    total = 12 + 10 + 2 + 2  # recordings but the hammerings, digits, sentences, music
    assert told == [(done, total) for done in range(1, total + 1)]
    assert sum(one.source != "synth" for one in pools[SOUND]) == 12
    assert len(pools[DIGIT]) == 10
    assert all(one.respond for one in pools[SPEECH])
    labelled = replace(clips.clips[0], group="speech", label="speech", source="fr")
    spoken = Material(type(clips)([labelled], ()), speech, cast)
    assert "fr" in {one.source for one in command.pools_of(spoken, "train", 1)[SPEECH]}


def test_only_what_a_model_gets_wrong(
    tiny: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("torch", reason="the interaction extra (torch, transformers) is not installed")
    from model_worker.catalogue import Catalogue
    from model_worker.interaction.config import TEST_TIERS
    from soundflow.train.prepare import starting
    from soundflow.train.run import save

    path, home = tiny
    weights = starting(TEST_TIERS, Catalogue(tmp_path), 1)
    save(weights, tmp_path / "always", threshold=0.0)
    save(weights, tmp_path / "never", threshold=2.0)
    common = ["--config", str(path), "--home", str(home), "--dev", "0", "--items", "3", "--carried", "1"]
    assert command.main([str(tmp_path / "a"), "--hard", str(tmp_path / "always"), *common], Settings()) == 0
    capsys.readouterr()
    streams = list(read(tmp_path / "a", "train", check=True))
    assert len(streams) == 3
    assert all(item.turns[0].begin_s == 0.0 for item in streams)  # each carries one thing from its beginning
    with pytest.raises(SoundflowError, match="was begun with other hard; name another directory"):
        command.main([str(tmp_path / "a"), "--hard", str(tmp_path / "never"), *common], Settings())
    again = [*common, "--seed", "2", "--carried", "0.5"]
    with pytest.raises(SoundflowError, match="other carried and seed"):
        command.main([str(tmp_path / "a"), "--hard", str(tmp_path / "always"), *again], Settings())
    alone = [*common, "--seed", "2"]
    assert command.main([str(tmp_path / "n"), "--hard", str(tmp_path / "never"), *alone], Settings()) == 0
    for item in read(tmp_path / "n", "train", check=True):  # it misses whoever speaks in the end, and nothing else
        assert any(turn.respond for turn in item.turns)
    with pytest.raises(SystemExit):
        command.main([str(tmp_path / "x"), *common, "--carried", "1.5"], Settings())
