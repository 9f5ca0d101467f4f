from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from calls.model import Mode
from calls.settings import Settings
from model_worker.evaluation import manifest
from soundflow import card, config
from soundflow.__main__ import main
from soundflow.build import BEGUN, Recipe, begin, build, task_of
from soundflow.card import count, shared_sources, write_card
from soundflow.channel import WIDEBAND
from soundflow.clips import Clip, Clips
from soundflow.commands import build as command_build
from soundflow.commands import picture, suite
from soundflow.compose import Bed, Event, Plan, compose
from soundflow.errors import NotWritten, SoundflowError, SpeechError
from soundflow.items import Item, Turn
from soundflow.shards import read
from soundflow.sources import SOURCES, database, fetch
from soundflow.speech import Cast, NotUnderstood, Said
from soundflow.streamaudio import from_streamaudio, write_wav
from soundflow.tasks import TASKS

ROOT = Path(__file__).resolve().parents[2]


def sums(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.glob("*.shard"))}


@pytest.fixture(scope="module")
def built(recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("built") / "data"
    build(recipe, folder)
    return folder


def test_a_build_is_whole(recipe: Recipe, built: Path) -> None:
    assert list(sums(built)) == ["dev-00000.shard", "test-00000.shard", *(f"train-0000{n}.shard" for n in range(3))]
    items = list(read(built, "train", check=True))
    assert [item.id for item in items] == [f"train-{n:06d}" for n in range(12)]
    assert all(item.split == "train" for item in items)


def test_a_second_run_makes_what_is_missing_or_damaged(recipe: Recipe, built: Path) -> None:
    before = sums(built)
    (built / "train-00001.shard").unlink()
    torn = built / "train-00002.shard"
    torn.write_bytes(torn.read_bytes()[:-1000])
    (built / ".train-00001.shard.1.part").write_bytes(b"half")
    told: list[tuple[int, int]] = []
    build(recipe, built, progress=lambda done, total, what: told.append((done, total)))
    assert sums(built) == before
    assert not list(built.glob(".*"))
    assert told == [(10, 18), (14, 18), (18, 18)]


def test_processes_change_nothing(recipe: Recipe, built: Path, tmp_path: Path) -> None:
    build(recipe, tmp_path / "two", jobs=2)
    assert sums(tmp_path / "two") == sums(built)


def test_another_configuration_is_refused(recipe: Recipe, built: Path) -> None:
    other = Recipe(replace(recipe.config, seed=99), recipe.material)
    with pytest.raises(SoundflowError, match="begun with other config"):
        build(other, built)


def test_a_folder_with_other_things_is_refused(recipe: Recipe, tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(SoundflowError, match="holds something else"):
        build(recipe, tmp_path)


def command(folder: Path, home: Path) -> list[str]:
    options = ["--items", "32", "--jobs", "2", "--home", str(home)]
    return [sys.executable, "-m", "soundflow", "build", *options, str(folder)]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the command makes when nothing happens: `data`, and its speech in `home`."""
    folder = tmp_path_factory.mktemp("whole")
    subprocess.run(command(folder / "data", folder / "home"), cwd=ROOT, check=True, capture_output=True)
    return folder


def test_killed_at_any_moment_it_resumes_to_the_same(whole: Path, tmp_path: Path) -> None:
    """The whole command, its processes with it, killed as hard as can be when it has begun, when it has finished a
    shard and when it has finished two."""
    folder = tmp_path / "killed"
    for shards in range(3):
        running = subprocess.Popen(
            command(folder, whole / "home"), cwd=ROOT, stderr=subprocess.DEVNULL, start_new_session=True
        )
        while not (folder / BEGUN).is_file() or len(sums(folder)) < shards:
            assert running.poll() is None
            time.sleep(0.02)
        os.killpg(running.pid, signal.SIGKILL)
        running.wait()
        assert len(sums(folder)) < len(sums(whole / "data"))
    subprocess.run(command(folder, whole / "home"), cwd=ROOT, check=True, capture_output=True)
    assert sums(folder) == sums(whole / "data")
    assert not list(folder.glob(".*"))


def test_killed_while_it_begins_it_begins_again(recipe: Recipe, tmp_path: Path) -> None:
    (tmp_path / f".{BEGUN}.123.part").write_text("{")
    begin(recipe, tmp_path)
    begin(recipe, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [BEGUN]


def test_a_full_disk_is_told_and_what_is_finished_stays(whole: Path, tmp_path: Path) -> None:
    """The kernel refuses files over 300 kB; a shard is larger. (Speech is there: espeak-ng would not survive this.)"""
    script = (
        "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, resource.RLIM_INFINITY));"
        "from soundflow.speech import Speech; Speech.ready = lambda self, voices: None;"  # it asks espeak-ng
        "from soundflow.__main__ import main; sys.exit(main())"
    )
    arguments = ["build", "--items", "32", "--jobs", "1", "--home", str(whole / "home"), str(tmp_path / "data")]
    done = subprocess.run([sys.executable, "-c", script, *arguments], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1
    assert "the disk is full" in done.stderr
    assert "Traceback" not in done.stderr
    assert [path.name for path in (tmp_path / "data").iterdir()] == [BEGUN]


@pytest.mark.parametrize("error", [SpeechError("espeak-ng was killed"), NotWritten("the disk is full")])
def test_what_may_not_happen_again_makes_no_other_data(
    recipe: Recipe, built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: SoundflowError
) -> None:
    """A voice that fails once ends the run, and the next one comes to the same bytes. One that is not understood is
    what other words are taken for."""
    speech = recipe.material.speech
    say, failing = speech.say, [error]

    def once(text: str, voices: Sequence[str]) -> Said:
        if failing:
            raise failing.pop()
        return say(text, voices)

    monkeypatch.setattr(speech, "say", once)
    with pytest.raises(type(error), match=str(error)):
        build(recipe, tmp_path / "data")
    build(recipe, tmp_path / "data")
    assert sums(tmp_path / "data") == sums(built)
    failing.append(NotUnderstood("hm"))
    build(recipe, tmp_path / "other")
    assert sums(tmp_path / "other") != sums(built)


def test_a_build_without_espeak_says_so_at_its_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SpeechError, match="apt install espeak-ng"):
        command_build.main(["--items", "8", "--home", str(tmp_path / "home"), str(tmp_path / "data")], Settings())
    assert not (tmp_path / "data").exists()


def test_without_matplotlib_there_is_a_card_without_pictures(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("matplotlib", "matplotlib.figure"):
        monkeypatch.setitem(sys.modules, name, None)
    arguments = ["--items", "8", "--jobs", "1", "--home", str(whole / "home"), str(tmp_path / "data")]
    assert command_build.main(arguments, Settings()) == 0
    assert "has no pictures: pictures need matplotlib: pip install 'offhook[soundflow]'" in capsys.readouterr().out
    text = (tmp_path / "data" / "README.md").read_text()
    assert "pip install 'offhook[soundflow]'" in text
    assert "![" not in text
    assert json.loads((tmp_path / "data" / "card.json").read_text())["splits"]["train"]["items"] == 8


def test_a_leak_between_splits_fails_when_the_card_has_named_it(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(card, "shared_sources", lambda counts, clips: {"clip freesound-1"})
    arguments = ["--items", "8", "--jobs", "1", "--home", str(whole / "home"), str(tmp_path / "data")]
    with pytest.raises(SoundflowError, match=r"more than one split of .*data: clip freesound-1"):
        command_build.main(arguments, Settings())
    assert "IN TWO SPLITS: clip freesound-1" in (tmp_path / "data" / "README.md").read_text()


def test_the_data_card(recipe: Recipe, built: Path) -> None:
    pytest.importorskip("matplotlib", reason="the data card's pictures need the extra soundflow")
    made = write_card(built, "test", recipe.material.clips, ())
    assert (made.shared, made.undrawn) == ([], "")
    numbers = json.loads((built / "card.json").read_text())
    assert numbers["splits"]["train"]["items"] == 12
    assert numbers["shared_sources"] == []
    chunks = numbers["splits"]["train"]["chunks"]
    assert sum(chunks.values()) == sum(item.chunks for item in read(built, "train"))
    assert chunks["respond"] == sum(len(item.replies()) for item in read(built, "train"))
    text = made.path.read_text()
    assert all(name in text for name in TASKS)
    for line in text.splitlines():
        if line.startswith("!["):
            assert (built / line.split("(")[1].rstrip(")")).is_file()


def test_a_shared_source_is_found(built: Path) -> None:
    counts = count(built)
    clip = Clip("a/1", Path("a"), "sound", "rain", "freesound-1", "train", "")
    clips = Clips((clip, replace(clip, id="a/2")), ())
    counts["train"].sources.add("a/1")
    counts["test"].sources.add("a/2")
    assert shared_sources(counts, clips) == {"clip freesound-1"}


def test_sub_tasks_come_by_weight() -> None:
    known = config.load("test")
    drawn = [task_of(known, "train", number) for number in range(2_000)]
    share = known.shares()
    for name in TASKS:
        assert abs(drawn.count(name) / 2_000 - share[name] / sum(share.values())) < 0.01


@pytest.mark.parametrize("name", ["test", "compact"])
def test_the_configurations(name: str) -> None:
    known = config.load(name)
    assert known.name == name
    assert known.items["train"] > known.items["test"] > 0
    assert set(known.material) <= set(SOURCES)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("seed = ", "seed"),
        ("[items]", "itemz"),
        ("train = [", "voices in"),
        ("dev_share = 1\nname = ", "dev_share"),
        ('"proactive/nothing" = ', "proactive/nothing"),
        ("seconds = [9.0, 8.0] # ", "seconds"),
    ],
)
def test_a_wrong_configuration_says_what(tmp_path: Path, change: str, said: str) -> None:
    text = (config.FOLDER / "test.toml").read_text()
    if change == "seed = ":
        text = text.replace("seed = 4", "")
    elif change == "[items]":
        text = text.replace("[items]", "[itemz]")
    elif change == "train = [":
        text = text.replace('dev = ["espeak:en-us+m2@165,45"', 'dev = ["espeak:en-us+m1"')
    elif change.startswith("dev_share"):
        text = "dev_share = 1\n" + text
    elif change.startswith('"proactive'):
        text = text.replace('"proactive/safety-sound"', '"proactive/nothing"')
    else:
        text = text.replace("seconds = [8.0, 16.0]", "seconds = [9.0, 8.0]")
    path = tmp_path / "mine.toml"
    path.write_text(text)
    with pytest.raises(SoundflowError, match=said):
        config.load(str(path))
    with pytest.raises(SoundflowError, match="there are compact, test"):
        config.load("nonsense")


def test_blends_share_no_voice_between_splits() -> None:
    with pytest.raises(SpeechError, match="kokoro:af_bella"):
        Cast(("kokoro:af_heart*0.5+af_bella*0.5",), ("kokoro:bf_emma",), ("kokoro:af_bella",))


def test_fetch_from_a_folder_and_from_a_zip_file(tmp_path: Path) -> None:
    """As ESC-50's archive is laid out: a table says which 400 are ESC-10 and of which class."""
    tone = (8_000 * np.sin(np.arange(16_000) / 20)).astype(np.int16)
    write_wav(tmp_path / "tone.wav", tone)
    archive = tmp_path / "esc.zip"
    with zipfile.ZipFile(archive, "w") as packed:
        rows = "filename,fold,target,category,esc10\n1-7-A-20.wav,1,20,crying_baby,True\n1-8-A-3.wav,1,3,cow,False\n"
        packed.writestr("ESC-50-master/meta/esc50.csv", rows)
        packed.writestr("ESC-50-master/LICENSE", "CC")
        for name in ("1-7-A-20", "1-8-A-3"):
            packed.write(tmp_path / "tone.wav", f"ESC-50-master/audio/{name}.wav")
    home = tmp_path / "home"
    fetch(SOURCES["esc10"], home, archive)
    found = database(("esc10",), home)
    assert [(clip.label, clip.source, clip.id) for clip in found.clips] == [
        ("baby_cry", "7", "esc10/crying_baby/1-7-A-20")
    ]
    assert (home / "esc10" / "LICENSE").is_file()
    (tmp_path / "local").mkdir()
    write_wav(tmp_path / "local" / "7_george_1.wav", tone)
    fetch(SOURCES["fsdd"], home, tmp_path / "local")
    assert [clip.label for clip in database(("fsdd",), home).clips] == ["7"]
    with pytest.raises(SoundflowError, match="offhook soundflow fetch music"):
        database(("music",), home)
    (tmp_path / "broken.zip").write_bytes(b"PK nonsense")
    with pytest.raises(SoundflowError, match="not a zip file"):
        fetch(SOURCES["music"], home, tmp_path / "broken.zip")
    assert not (home / "music").exists()
    assert not list(home.glob(".*"))


def test_hold_music_comes_from_where_its_package_puts_it(tmp_path: Path) -> None:
    music = replace(SOURCES["music"], installed=str(tmp_path / "moh"))
    with pytest.raises(SoundflowError, match="install Debian's asterisk-moh-opsound-wav, or"):
        fetch(music, tmp_path)
    (tmp_path / "moh").mkdir()
    write_wav(tmp_path / "moh" / "a-piece.wav", np.full(16_000, 8_000, np.int16))
    fetch(music, tmp_path)
    assert [clip.id for clip in database(("music",), tmp_path).clips] == ["music/a-piece"]


def test_export_as_streamaudio(built: Path, tmp_path: Path) -> None:
    from soundflow.commands.build import export

    export(built, "dev", 2)
    folder = built / "streamaudio" / "dev"
    rows = [json.loads(line) for line in (folder / "items.jsonl").read_text().splitlines()]
    items = list(read(built, "dev"))
    assert len(rows) == 2
    for row, item in zip(rows, items, strict=False):
        again = from_streamaudio(row, folder)
        assert again.meta() == item.meta()
        assert np.array_equal(again.audio, item.audio)


def test_the_commands(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from soundflow.commands import tasks

    assert tasks.main(["--home", str(tmp_path)], Settings()) == 0
    assert sum(line.startswith("  ") for line in capsys.readouterr().out.splitlines()) == 28
    done = subprocess.run([sys.executable, "-m", "soundflow", "nonsense"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2
    assert "usage: offhook soundflow" in done.stdout


def test_an_item_below_the_first_is_refused(built: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        picture.main(["--item", "-1", str(built)], Settings())
    assert "--item: must be 0 or more" in capsys.readouterr().err
    with pytest.raises(SoundflowError, match="has no train item 99"):
        picture.main(["--item", "99", str(built)], Settings())


@pytest.mark.parametrize("library", [False, True])
def test_a_full_disk_anywhere_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], library: bool
) -> None:
    error: Exception = OSError(28, "No space left on device", "a/b.json")
    if library:
        safetensors = pytest.importorskip("safetensors", reason="the interaction extra is not installed")
        error = safetensors.SafetensorError("Error while serializing: No space left on device (os error 28)")

    def fail(arguments: Sequence[str], settings: Settings) -> int:
        raise error

    monkeypatch.setattr(suite, "main", fail)
    monkeypatch.setattr(sys, "argv", ["soundflow", "suite"])
    assert main() == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("offhook soundflow suite: ")
    assert "No space left on device" in line


def test_built_streams_can_be_played_to_a_model(
    built: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As a manifest that `offhook eval` takes, with the same things expected at the same times."""
    path = tmp_path / "made" / "dev.jsonl"
    assert suite.main([str(built), str(path), "--split", "dev"], Settings()) == 0
    assert f"{path}: " in capsys.readouterr().out
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    expected = {one.audio: one for one in manifest.read(path)}
    items = {f"dev/{item.id}.wav": item for item in read(built, "dev") if suite.line(item, "")}
    assert set(expected) == set(items)
    for told in lines:
        one, item = expected[told["audio"]], items[told["audio"]]
        assert one.path.stat().st_size == 44 + 2 * len(item.audio)
        assert (one.mode, one.instruction, one.task) == (item.mode, item.instruction, item.task)
        starts = {turn.begin_s: turn for turn in item.turns if turn.respond}
        assert {event.at_s for event in one.events if event.respond} <= set(starts)
        for event in one.events:
            assert (
                event.respond_after_s is None or event.at_s <= event.respond_after_s <= starts[event.at_s].end_s - 0.39
            )
    assert {event.respond for one in expected.values() for event in one.events} == {True, False}
    for folder, name, wrong in ((tmp_path, "a.jsonl", "no test shards"), (built, "a.json", "must end in .jsonl")):
        with pytest.raises(SoundflowError, match=wrong):
            suite.main([str(folder), str(tmp_path / name)], Settings())


def test_a_stream_that_a_manifest_cannot_judge_is_left_out() -> None:
    one = Turn("x", 1.0, 2.5, True, "Hello.", "speech", "Good morning.")
    turns = (replace(one, begin_s=2.5, end_s=4.0), one)
    item = Item("a", "x", Mode.TRANSCRIBE, "", np.zeros(20 * 6400, np.int16), turns, "test", 1)
    told = suite.line(item, "a.wav")
    assert told
    assert "instruction" not in told
    assert [(event["at_s"], event["end_s"], event["text"]) for event in told["events"]] == [
        (1.0, 2.5, "Good morning."),  # what is to be written: it may be more than what is said
        (2.5, 4.0, "Good morning."),
    ]
    assert told["events"][0]["respond_after_s"] == 2.1
    answered = suite.line(replace(item, mode=Mode.ANSWER), "a.wav")
    assert answered
    assert [(event["reply"], "text" in event) for event in answered["events"]] == [("Good morning.", False)] * 2
    assert suite.line(replace(item, turns=()), "a.wav") is None
    assert suite.line(replace(item, turns=(one, replace(one, begin_s=2.4, end_s=4.0))), "a.wav") is None
    assert suite.line(replace(item, unscored=((3, 5),)), "a.wav") is None


def test_an_alarm_on_rain_can_be_judged() -> None:
    """A labelled background is not something beside the alarm: the manifest wants the alarm to be told of."""
    rng = np.random.default_rng(1)
    alarm = Event(np.full(32_000, 0.1, np.float32), "a smoke alarm", "smoke_alarm", "A smoke alarm.", early=True)
    rain = Bed(rng.normal(0.0, 0.1, 16_000).astype(np.float32), -50.0, "rain", "rain", ("synth/rain/1",))
    item = compose(Plan("x", Mode.ASSIST, "", (alarm,)), rain, WIDEBAND, "test", 1, rng)
    assert [(turn.label, turn.bed) for turn in item.turns] == [("rain", True), ("smoke_alarm", False)]
    assert item.turns[0].sources == ("synth/rain/1",)  # that splits share no recording is seen by it
    told = suite.line(item, "a.wav")
    assert told
    assert [(event["label"], event["expect"]) for event in told["events"]] == [("smoke_alarm", "respond")]
    assert suite.line(replace(item, turns=item.turns[:1]), "a.wav") is None


def test_training_without_torch_says_what_to_install() -> None:
    code = (
        "import runpy, sys\nsys.modules['torch'] = None\nsys.argv = ['soundflow', 'train', 'data', 'out']\n"
        "runpy.run_module('soundflow', run_name='__main__')"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "offhook soundflow train wants torch: pip install 'offhook[interaction]'\n"
