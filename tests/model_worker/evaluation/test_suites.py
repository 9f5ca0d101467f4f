"""The suites, from small sources made here."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import model_worker
from model_worker.evaluation.__main__ import lengths
from model_worker.evaluation.manifest import Item, read
from model_worker.evaluation.plans import NEEDS, plans
from model_worker.evaluation.suites import TEXTS, arguments, gather, main
from tests.model_worker.evaluation.sounds import quiet, save, tone

LABELS = ("baby_cry", "chainsaw", "rain", "rooster", "dog_bark")


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sources")
    for number, label in enumerate(LABELS):
        (folder / "sounds" / label).mkdir(parents=True)
        for fold, takes in ((1, "AB"), (4, "AB"), (5, "A")):
            for take in takes:
                pcm = np.concatenate([quiet(0.2), tone(0.5 + 0.1 * number), quiet(0.3)])
                save(folder / "sounds" / label / f"{fold}-{take}.wav", pcm)
    for name in ("digits", "prompts", "music"):
        (folder / name).mkdir()
    for digit in range(10):
        for speaker in ("theo", "george", "yweweler"):
            seconds = 0.4 if speaker == "yweweler" else 0.3
            save(folder / "digits" / f"{digit}_{speaker}_0.wav", tone(seconds, 8_000), 8_000)
    save(folder / "prompts" / "hello.wav", tone(0.5))
    (folder / "prompts.tsv").write_text("hello\tHello there.\nmissing\tNot here.\n")
    save(folder / "music" / "a.wav", tone(1.0))
    return folder


SHORT = ("--hours", "0.002", "--minutes", "0.1")


def given(sources: Path, folder: Path, *more: str) -> list[str]:
    folders = [f"--{name}={sources / name}" for name in ("sounds", "digits", "prompts", "music")]
    return [str(folder), *SHORT, *folders, "--texts", str(sources / "prompts.tsv"), *more]


def build(sources: Path, folder: Path, *more: str) -> int:
    return main(given(sources, folder, *more))


@pytest.fixture
def nothing_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PROMPTS", "MUSIC"):
        monkeypatch.setattr(f"model_worker.evaluation.suites.{name}", tmp_path / "not installed")


@pytest.fixture(scope="module")
def built(sources: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("suites")
    assert build(sources, folder) == 0
    return folder


def suite(folder: Path, name: str) -> list[Item]:
    path = folder / f"{name}.jsonl"
    items = read(path)
    lengths(path, items)  # raises where audio and manifest do not fit
    return items


def test_every_suite_can_be_played(built: Path) -> None:
    names = {path.stem for path in built.glob("*.jsonl")}
    assert names == {
        "single", "five", "concat-1", "concat-2", "concat-3", "concat-4", "concat-5", "late-5s", "late",
        "recognition", "digits", "instruction", "silence", "line-noise", "telephone", "hold-music",
    }  # fmt: skip
    assert names == set(NEEDS)
    for name in names:
        assert suite(built, name)


def test_only_what_is_held_out(built: Path) -> None:
    assert len(suite(built, "single")) == 10  # fold 4 of three
    assert [item.events[0].text for item in suite(built, "digits")][:3] == ["zero", "one", "two"]
    assert len(suite(built, "digits")) == 10  # one speaker of three
    assert [item.text for item in suite(built, "recognition")] == ["Hello there."]


def test_another_fold_and_speaker_that_are_held_out(built: Path, sources: Path, tmp_path: Path) -> None:
    assert build(sources, tmp_path, "--only", "single", "digits", "--fold", "5", "--speaker", "yweweler") == 0
    assert len(suite(tmp_path, "single")) == 5  # fold 5 has one take a class
    assert len(suite(tmp_path, "digits")) == 10
    ours, theirs = (folder / "digits" / "0000.wav" for folder in (tmp_path, built))
    assert ours.stat().st_size > theirs.stat().st_size  # yweweler speaks longer


def test_no_fold_or_speaker_that_was_trained_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for option, trained_on in (("--fold", "1"), ("--speaker", "george")):
        with pytest.raises(SystemExit):
            main([str(tmp_path), option, trained_on])
        assert f"argument {option}: invalid choice" in capsys.readouterr().err


def test_the_texts_of_the_prompts_are_installed_with_the_package() -> None:
    package = Path(model_worker.__file__).parent
    assert TEXTS.is_relative_to(package)
    assert dict(line.split("\t") for line in TEXTS.read_text(encoding="utf-8").splitlines())["agent-loggedoff"]


def test_it_is_said_what_is_not_kept_apart(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--help"])
    assert "Hold music is not kept apart" in " ".join(capsys.readouterr().out.split())


def test_the_policy_says_what_deserves_a_response(built: Path) -> None:
    wanted = {item.events[0].label: item.events[0].respond for item in suite(built, "single")}
    assert wanted == {"baby_cry": True, "chainsaw": True, "rain": False, "rooster": False, "dog_bark": False}


def test_five_in_a_row_have_pauses_and_joined_ones_have_none(built: Path) -> None:
    for name, least, most in (("five", 0.8, 2.4), ("concat-5", 0.0, 0.0)):
        for item in suite(built, name):
            assert len(item.events) == 5
            for before, after in zip(item.events, item.events[1:], strict=False):
                assert before.end_s is not None
                assert least - 0.002 <= after.at_s - before.end_s <= most + 0.002
    for count in (1, 2, 5):
        labels = sorted(event.label for item in suite(built, f"concat-{count}") for event in item.events)
        assert labels == sorted([*LABELS, *LABELS])


def test_late_ones_are_late(built: Path) -> None:
    assert {item.events[0].at_s for item in suite(built, "late")} == {6.0}
    assert {item.events[0].at_s for item in suite(built, "late-5s")} == {5.0}
    assert len(suite(built, "late")) == len(LABELS)


def test_instructions_ask_for_what_is_there_and_what_is_not(built: Path) -> None:
    items = suite(built, "instruction")
    asked = [item for item in items if item.instruction.startswith("Tell me when")]
    assert len(asked) == 2 * len(LABELS)
    assert [sum(event.respond for event in item.events) for item in asked[:4]] == [1, 0, 1, 0]
    counts = [item for item in items if item.instruction.startswith("Each time")]
    for item in counts:
        labels = [event.label for event in item.events if event.respond]
        assert labels == ["one", "two", "three"][: len(labels)]
        assert labels
    for item in items[-20::2]:
        assert next(event.label for event in item.events if event.respond) in item.instruction


def test_the_same_sources_give_the_same_files(built: Path, sources: Path, tmp_path: Path) -> None:
    assert build(sources, tmp_path, "--only", "five", "line-noise") == 0
    assert {path.stem for path in tmp_path.glob("*.jsonl")} == {"five", "line-noise"}
    for path in [*tmp_path.rglob("*.wav"), *tmp_path.rglob("*.jsonl")]:
        assert path.read_bytes() == (built / path.relative_to(tmp_path)).read_bytes()


def test_the_published_layout_of_the_sounds(sources: Path, tmp_path: Path) -> None:
    (tmp_path / "meta").mkdir()
    (tmp_path / "audio").mkdir()
    rows = ["filename,fold,target,category,esc10,src_file,take"]
    for name, fold, category, ten in (
        ("4-1-A-12.wav", 4, "crackling_fire", True),
        ("4-2-A-1.wav", 4, "rooster", True),
        ("4-3-A-9.wav", 4, "crow", False),
        ("1-4-A-1.wav", 1, "rooster", True),
    ):
        save(tmp_path / "audio" / name, tone(0.3))
        rows.append(f"{name},{fold},0,{category},{ten},0,A")
    (tmp_path / "meta" / "esc50.csv").write_text("\n".join(rows))
    out = tmp_path / "out"
    assert main([str(out), "--sounds", str(tmp_path), "--only", "single"]) == 0
    assert [(item.events[0].label, item.events[0].respond) for item in suite(out, "single")] == [
        ("crackling_fire", True),
        ("rooster", False),
    ]


EMPTY = (
    ("sounds", "no sounds of fold 4"),
    ("digits", "no digits of theo"),
    ("prompts", "none of the prompts"),
    ("music", "no music"),
)


@pytest.mark.parametrize(("option", "says"), [*EMPTY, *((option, "there is no such folder") for option, _ in EMPTY)])
@pytest.mark.parametrize("only", [[], ["--only", "silence"]])
def test_a_folder_that_does_not_hold_what_it_should(
    option: str, says: str, only: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / option
    if "such" not in says:
        folder.mkdir()
    assert main([str(tmp_path / "out"), *SHORT, f"--{option}", str(folder), *only]) == 2
    printed = capsys.readouterr()
    assert f"suites: {folder}: {says}" in printed.err
    assert (printed.out, printed.err.count("\n")) == ("", 1)
    assert not (tmp_path / "out").exists()


def test_texts_that_are_not_there(sources: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert build(sources, tmp_path / "out", "--texts", str(tmp_path / "none.tsv")) == 2
    assert "none.tsv" in capsys.readouterr().err


def test_only_suites_that_there_are(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main([str(tmp_path), "--only", "silence", "bogus"])
    told = capsys.readouterr().err
    assert "argument --only: invalid choice: 'bogus'" in told
    assert all(name in told for name in NEEDS)


@pytest.mark.usefixtures("nothing_installed")
@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("single", "give --sounds"),
        ("late", "give --sounds"),
        ("digits", "give --digits"),
        ("instruction", "give --sounds or --digits"),
        ("recognition", "give --prompts ("),
        ("hold-music", "give --music ("),
    ],
)
def test_only_a_suite_whose_folder_is_not_given(
    name: str, says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(tmp_path / "out"), *SHORT, "--only", "silence", name]) == 2
    assert capsys.readouterr().err.startswith(f"suites: cannot make {name}: {says}")
    assert not (tmp_path / "out").exists()


@pytest.mark.usefixtures("nothing_installed")
def test_what_is_skipped_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path), *SHORT]) == 0
    assert {path.stem for path in tmp_path.glob("*.jsonl")} == {"silence", "line-noise", "telephone"}
    reason = f"({tmp_path / 'not installed'}: there is no such folder)"
    assert capsys.readouterr().err.splitlines() == [
        "suites: skipped single, five, concat-1, concat-2, concat-3, concat-4, concat-5, late-5s, late: give --sounds",
        f"suites: skipped recognition: give --prompts {reason}",
        "suites: skipped digits: give --digits",
        "suites: skipped instruction: give --sounds or --digits",
        f"suites: skipped hold-music: give --music {reason}",
    ]
    assert main([str(tmp_path), *SHORT, "--only", "silence"]) == 0
    assert capsys.readouterr().err == ""


@pytest.mark.usefixtures("nothing_installed")
def test_too_few_recordings(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "sounds" / "rain").mkdir(parents=True)
    save(tmp_path / "sounds" / "rain" / "4-A.wav", tone(0.5))
    of_one = [str(tmp_path / "out"), *SHORT, "--sounds", str(tmp_path / "sounds")]
    assert main([*of_one, "--only", "five", "instruction"]) == 2
    assert capsys.readouterr().err == "suites: cannot make five, instruction: too few recordings\n"
    assert main(of_one) == 0
    assert len(suite(tmp_path / "out", "concat-1")) == 1
    assert not (tmp_path / "out" / "five.jsonl").exists()


def test_nothing_at_all(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path), "--hours", "1e-9", "--only", "silence", "telephone"]) == 2
    assert capsys.readouterr().err == "suites: cannot make silence, telephone: --hours is too short\n"


@pytest.mark.parametrize(
    ("option", "value"),
    [("--hours", "nan"), ("--hours", "0"), ("--hours", "inf"), ("--minutes", "-1"), ("--seed", "-1")],
)
def test_numbers_that_make_no_suite(
    option: str, value: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        main([str(tmp_path), option, value])
    assert f"argument {option}: must be " in capsys.readouterr().err


def test_a_full_disk_is_told_with_the_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "silence").mkdir()
    audio, manifest = tmp_path / "silence" / "0000.wav", tmp_path / "silence.jsonl"
    audio.symlink_to("/dev/full")
    manifest.write_text("of an earlier run, whose audio is now gone")
    assert main([str(tmp_path), *SHORT, "--only", "silence"]) == 2
    told = capsys.readouterr().err
    assert told.startswith(f"suites: {audio} has no room (No space left on device): make room, or give another folder")
    assert not manifest.exists()


def test_where_nothing_can_be_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "out"
    folder.touch()
    assert main([str(folder), *SHORT, "--only", "silence"]) == 2
    told = capsys.readouterr().err
    assert f"{folder / 'silence.jsonl'} cannot be written (Not a directory): give another folder" in told


def test_as_many_items_as_were_planned(built: Path, sources: Path) -> None:
    options = arguments(given(sources, built))
    planned = plans(gather(options), options.hours, options.minutes, options.seed)
    assert {plan.name: plan.items for plan in planned} == {name: len(suite(built, name)) for name in NEEDS}


def test_progress_is_shown_to_people(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    assert main([str(tmp_path), *SHORT, "--only", "silence"]) == 0
    printed = capsys.readouterr()
    assert "silence" in printed.err
    assert "100 %" in printed.err
    assert printed.out == f"{tmp_path / 'silence'}.jsonl: 1 items\n"
