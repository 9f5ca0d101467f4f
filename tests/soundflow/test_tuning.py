"""A trained model is tuned on more data: the plan, what is refused, what is mixed in, and the whole by the command."""

from __future__ import annotations

import pytest

pytest.importorskip("torch", reason="the interaction extra (torch, transformers) is not installed: scripts/setup test")
pytest.importorskip(
    "transformers", reason="the interaction extra (torch, transformers) is not installed: scripts/setup test"
)

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from calls.audio import CHUNK_S
from calls.settings import Settings
from model_worker.catalogue import Catalogue, CatalogueError
from model_worker.interaction.config import SMALL, TEST
from model_worker.interaction.make import make_tokenizer
from soundflow import shards
from soundflow.base import Weights
from soundflow.commands import train
from soundflow.errors import SoundflowError
from soundflow.features import Encoded
from soundflow.items import EITHER, RESPOND, Item, Turn
from soundflow.train.examples import Crop, decoder_example, response, targets
from soundflow.train.run import curve, maker
from soundflow.train.stages import PLANS, tuning
from soundflow.train.start import plan_for, trained
from tests.soundflow.making import made_item

ROOT = Path(__file__).resolve().parents[2]


def judged(seed: int, chunks: int = 60) -> Item:
    """As feedback makes them: one Turn, and hardly anything else is known."""
    made = made_item(seed, chunks)
    turn = Turn("feedback/hint", 20.0, 20.8, True, "caller", "hint", "Reset the oil light.")
    return replace(made, task="feedback", turns=(turn,), unscored=((0, 51), (54, chunks)))


def test_tuning_is_the_last_stage_of_each_tier_at_a_low_rate() -> None:
    stages = {name: tuning(plan).stages for name, plan in PLANS.items()}
    assert [stage.name for stage in stages["compact"]] == ["tuned-ear", "tuned-instructions"]
    assert [stage.name for stage in stages["small"]] == ["tuned-ear"]  # its writer knows no words for a hint
    assert [stage.name for stage in stages["test"]] == ["tuned-ear", "tuned-instructions"]
    for name, plan in PLANS.items():
        for tuned in stages[name]:
            whole = next(stage for stage in plan.stages if tuned.name == f"tuned-{stage.name}")
            assert tuned.rate == pytest.approx(whole.rate / 10)
            assert 20 <= tuned.steps <= max(20, whole.steps / 5)
            assert tuned.warm_up < tuned.steps


def test_a_model_of_another_shape_is_refused_with_what_differs() -> None:
    mine = replace(PLANS["test"].model, threshold=0.8, name="mine")
    assert plan_for(mine, "", "mine").model == mine
    assert plan_for(mine, "test", "mine").model.threshold == 0.8
    with pytest.raises(SoundflowError, match=r"mine is no small model .*decoder\.width 96, not 256"):
        plan_for(mine, "small", "mine")
    odd = replace(SMALL, decoder=replace(SMALL.decoder, layers=5))
    with pytest.raises(SoundflowError, match=r"nearest is small: decoder\.layers 5, not 3"):
        plan_for(odd, "", "odd")


def test_what_nobody_knows_is_not_scored_and_crops_have_a_turn_in_them() -> None:
    rng = np.random.default_rng(1)
    item = judged(1)
    labels, _ = targets(item, 0, item.chunks, rng)
    assert [at for at, label in enumerate(labels) if label != EITHER] == [51, 52, 53]
    assert labels[51] == RESPOND
    made = Encoded(item, torch.zeros(item.chunks, 20, TEST.tower.width, dtype=torch.float16))
    tokenizer = make_tokenizer()
    for _ in range(20):
        example = decoder_example(TEST, tokenizer, made, Crop(chunks=12), rng)
        assert (example.layout.control == RESPOND).sum() == 1


def test_what_depends_on_the_beginning_is_learnt_with_as_much_of_it_as_fits() -> None:
    turns = tuple(
        Turn("voice-chat/recall", end * CHUNK_S, (end + 1) * CHUNK_S, True, "?", "x", "Anna.") for end in (9, 35)
    )
    item = replace(made_item(1, 40), task="voice-chat/recall", turns=turns)
    silent = replace(item, turns=(replace(turns[1], respond=False, reply=""),))
    told, untold = Crop(chunks=20, told=True), Crop(chunks=20)
    assert {first_chunk(item, told, seed) for seed in range(20)} == {0, 16}
    assert {first_chunk(silent, untold, seed) for seed in range(20)} == {16}
    plain = replace(item, task="voice-chat/facts")
    assert len({first_chunk(plain, told, seed) for seed in range(20)}) > 2


def first_chunk(item: Item, crop: Crop, seed: int) -> int:
    """Of an example that is drawn: its states are the numbers of its Chunks."""
    numbers = torch.arange(float(item.chunks)).repeat_interleave(20 * TEST.tower.width)
    made = Encoded(item, numbers.view(item.chunks, 20, -1).half())
    return int(decoder_example(TEST, make_tokenizer(), made, crop, np.random.default_rng(seed)).states[0, 0, 0])


def test_a_reply_that_is_too_long_is_cut_and_never_stops_a_run() -> None:
    tokenizer = make_tokenizer()
    words = "Reset the oil light from the seat. " * 20
    assert len(response(TEST, tokenizer, "normal", words)) == TEST.memory.text
    item = replace(
        made_item(1, 30),
        turns=(
            Turn("feedback/hint", 1.0, 2.0, True, "caller", "hint", words),
            Turn("feedback/hint", 4.0, 5.0, True, "caller", "hint", words),
        ),
        unscored=((0, 1),),
    )
    made = Encoded(item, torch.zeros(30, 20, TEST.tower.width, dtype=torch.float16))
    for seed in range(10):
        example = decoder_example(TEST, tokenizer, made, Crop(chunks=30), np.random.default_rng(seed))
        assert ((example.layout.words >= 0).sum()) <= TEST.memory.text


def test_so_large_a_share_comes_from_beside() -> None:
    weights = Weights(TEST, {}, make_tokenizer())
    new, old = (
        [Encoded(made_item(1, chunks), torch.zeros(chunks, 20, 64, dtype=torch.float16))] for chunks in (10, 12)
    )
    stage = replace(PLANS["test"].stages[3], crop=Crop(chunks=20))
    rng = np.random.default_rng(1)
    make = maker(PLANS["test"], stage, weights, new, old, 0.7)
    drawn = [len(make(rng).states) for _ in range(300)]
    assert 0.6 < drawn.count(12) / 300 < 0.8
    assert {len(maker(PLANS["test"], stage, weights, new)(rng).states) for _ in range(20)} == {10}


def test_the_last_stage_learns_from_streams_with_an_instruction() -> None:
    plain, told = (
        Encoded(replace(made_item(1, chunks), instruction=words), torch.zeros(chunks, 20, 64, dtype=torch.float16))
        for chunks, words in ((10, ""), (12, "Count the dogs."))
    )
    weights, stage = Weights(TEST, {}, make_tokenizer()), PLANS["test"].stages[4]
    rng = np.random.default_rng(1)

    def drawn(data: list[Encoded]) -> set[int]:
        make = maker(PLANS["test"], replace(stage, crop=Crop(chunks=20)), weights, data)
        return {len(make(rng).states) for _ in range(20)}

    assert drawn([plain, told]) == {12}
    assert drawn([plain]) == {10}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """What a model was trained on, and feedback."""
    data, feedback = tmp_path_factory.mktemp("data"), tmp_path_factory.mktemp("feedback")
    shards.write(data, "train", 0, [made_item(n, 12) for n in range(4)])
    shards.write(data, "dev", 0, [made_item(n, 12, "dev") for n in range(10, 12)])
    shards.write(feedback, "train", 0, [judged(n) for n in range(2)])
    return data, feedback


def test_train_then_tune(folders: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data, feedback = map(str, folders)
    first, tuned = tmp_path / "first", tmp_path / "tuned"
    few = ["--steps", "1", "--threads", "1"]
    assert train.main([*few, data, str(first)], Settings()) == 0
    tune = [*few, "--from", str(first / "model"), "--beside", data, feedback, str(tuned)]
    assert train.main(tune, Settings()) == 0
    said = capsys.readouterr().out
    assert "tuned-instructions 1 of 1: loss" in said
    assert f"{data}: " in said
    assert "before" in said
    assert "as before" in said  # the threshold: two dev streams say nothing
    assert (tuned / "model" / "manifest.json").is_file()
    assert train.main(tune, Settings()) == 0  # and again: it is finished
    with pytest.raises(SoundflowError, match="another directory"):
        train.main([*few, "--from", str(first / "model"), feedback, str(tuned)], Settings())
    with pytest.raises(SoundflowError, match="no compact model"):
        train.main([*few, "--config", "compact", "--from", str(first / "model"), feedback, str(tuned)], Settings())


def test_an_ear_that_was_trained_is_taken_as_it_is(folders: tuple[Path, Path], tmp_path: Path) -> None:
    data = str(folders[0])
    few = ["--steps", "1", "--threads", "1"]
    assert train.main([*few, data, str(tmp_path / "first")], Settings()) == 0
    ear = str(tmp_path / "first" / "model")
    assert train.main([*few, "--seed", "2", "--ear", ear, data, str(tmp_path / "second")], Settings()) == 0
    assert not (tmp_path / "second" / "ear").exists()  # no stage of its own
    first, second = (trained(str(tmp_path / name / "model"), Catalogue().path) for name in ("first", "second"))
    assert second.config.threshold == first.config.threshold
    for name, tensor in first.tensors.items():
        same = torch.equal(tensor, second.tensors[name])
        if not name.startswith(("decoder.", "tower.adapter.", "tower.proj.")):
            assert same, name
        elif name.startswith("decoder.layers.") and name.endswith("proj.weight"):
            assert not same, name
    with pytest.raises(SoundflowError, match=r"the ear of small does not fit this --config: .*ear\.width 256, not 96"):
        train.main([*few, "--ear", "small", data, str(tmp_path / "third")], settings_with_whisper())
    with pytest.raises(SystemExit):
        train.main(["--ear", ear, "--from", ear, data, str(tmp_path / "third")], Settings())


def settings_with_whisper() -> Settings:
    try:
        Catalogue(Settings().models).path("whisper-base")
    except CatalogueError as error:
        pytest.skip(str(error))
    return Settings()


def test_a_rate_of_ones_own_is_that_of_every_stage(
    folders: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    few = ["--steps", "1", "--threads", "1", "--rate", "0.0004"]
    assert train.main([*few, str(folders[0]), str(tmp_path / "out")], Settings()) == 0
    rates = {point["rate"] for point in curve(tmp_path / "out", PLANS["test"])}
    assert rates == {0.0004}  # the first step of a warm-up of one
    with pytest.raises(SystemExit):
        train.main(["--rate", "-1", str(folders[0]), str(tmp_path / "x")], Settings())


@pytest.mark.parametrize("wrong", [("--every", "0"), ("--steps", "0"), ("--steps", "-2"), ("--seed", "-1")])
def test_no_steps_are_refused(
    folders: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str], wrong: tuple[str, str]
) -> None:
    with pytest.raises(SystemExit):
        train.main([*wrong, str(folders[0]), str(tmp_path / "x")], Settings())
    assert f"{wrong[0]}: must be" in capsys.readouterr().err
    assert not (tmp_path / "x").exists()


def test_a_dry_run_of_the_large_model(
    folders: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train.main(["--config", "3b", "--dry-run", str(folders[0]), str(tmp_path)], Settings()) == 0
    assert "3b: all 4 stages took a step" in capsys.readouterr().out


def test_two_processes_come_to_one_model(folders: tuple[Path, Path], tmp_path: Path) -> None:
    pytest.importorskip("accelerate", reason="several processes need the extra train")
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "soundflow",
         "train", "--steps", "1", "--threads", "1", str(folders[0]), str(tmp_path / "out")],
        cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("format 1 of 1: loss") == 1  # one of them speaks
    assert (tmp_path / "out" / "model" / "manifest.json").is_file()
