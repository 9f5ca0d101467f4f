"""Training on synthetic sounds: it learns when to speak, and a run that was killed comes to the same weights."""

from __future__ import annotations

import pytest

pytest.importorskip("torch", reason="the interaction extra (torch, transformers) is not installed: scripts/setup test")
pytest.importorskip(
    "transformers", reason="the interaction extra (torch, transformers) is not installed: scripts/setup test"
)

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from calls.audio import CHUNK_SAMPLES, SAMPLE_RATE
from calls.model import Mode
from calls.settings import Settings
from model_worker.catalogue import Catalogue
from model_worker.interaction.checkpoint import load
from model_worker.interaction.config import COMPACT, OMNI_3B, SMALL, TEST, InteractionConfig, MemoryConfig
from soundflow.base import Weights
from soundflow.commands import build
from soundflow.errors import NotWritten, SoundflowError
from soundflow.features import Encoded, Encoder
from soundflow.items import RESPOND, SILENT, Item, Turn
from soundflow.train import prepare
from soundflow.train.dry import dry_run, shrunk
from soundflow.train.examples import Crop, targets
from soundflow.train.loop import Point, Trainer, learning_rate
from soundflow.train.network import DECODER, EAR, Network
from soundflow.train.picture import curve_picture
from soundflow.train.prepare import starting
from soundflow.train.run import curve, maker, memory_of, run, save
from soundflow.train.stages import OF_EAR, PLANS, Plan, Stage
from soundflow.train.tune import THRESHOLDS, WAKE, decisions, patient, tune
from tests.soundflow.making import full_disk

TWO_TIERS = replace(
    TEST,
    name="two-tiers",
    tower=replace(TEST.tower, ear=32, taps=(1, 2), join="stack", level=0.0),
    ear=replace(
        TEST.decoder, vocabulary=7, width=48, layers=1, heads=3, kv_heads=3, feed_forward=96, control_head=True
    ),
    ear_memory=MemoryConfig(prefix=1, text=1, chunks=6),
)
STAGE = Stage("ear", EAR, OF_EAR, steps=40, crop=Crop(chunks=10), rate=3e-3, warm_up=5, batch=8)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Threads that wait for each other on busy cores make small matrices ten times slower."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def item(seed: int, chunks: int = 16) -> Item:
    """A tone that deserves a response and a noise that does not, anywhere."""
    rng = np.random.default_rng(seed)
    audio = rng.normal(0, 20, chunks * CHUNK_SAMPLES)
    turns = []
    for number, begin_s in enumerate(rng.permutation([0.7, 3.1]) + rng.uniform(0, 0.8, 2)):
        length = SAMPLE_RATE
        first = int(begin_s * SAMPLE_RATE)
        tone = 6000 * np.sin(2 * np.pi * 1000 * np.arange(length) / SAMPLE_RATE)
        audio[first : first + length] += tone if number == 0 else rng.normal(0, 2000, length)
        told = ("a tone", "tone", "a tone", "normal", True) if number == 0 else ("noise", "noise", "", "normal", False)
        turns.append(Turn("proactive/x", begin_s, begin_s + 1, number == 0, *told))
    pcm = np.clip(audio, -32768, 32767).astype(np.int16)
    return Item(f"made-{seed}", "proactive/x", Mode.ASSIST, "", pcm, tuple(turns), "train", seed)


@pytest.fixture(scope="module")
def weights() -> Weights:
    return starting(TWO_TIERS, Catalogue(), 1)


@pytest.fixture(scope="module")
def data(weights: Weights) -> list[Encoded]:
    return encode(weights, range(24))


def encode(weights: Weights, seeds: range) -> list[Encoded]:
    tower = {name.removeprefix("tower."): t for name, t in weights.tensors.items() if name.startswith("tower.")}
    items = [item(seed) for seed in seeds]
    states = Encoder(weights.config, tower).states(items)
    return [Encoded(one, own) for one, own in zip(items, states, strict=True)]


def test_the_trigger_is_learnt_and_holds_on_streams_not_trained_on(
    weights: Weights, data: list[Encoded], tmp_path: Path
) -> None:
    plan = Plan(TWO_TIERS, (STAGE,))
    points: list[Point] = []
    trained = run(plan, weights, data, tmp_path, every=10, show=points.append)
    assert points[-1].loss < points[0].loss / 2
    assert (points[-1].accuracy or 0) > 0.9
    threshold, events = tune(trained, encode(weights, range(100, 108)))
    assert events.balanced > 0.8  # always silent, always responding: 0.5
    check_patience(trained, weights, data)
    save(trained, tmp_path / "model", threshold, 0.98)
    served = load(tmp_path / "model")
    assert (served.config.threshold_in("assist"), served.config.threshold_in("answer")) == (threshold, 0.98)
    torch.testing.assert_close(served.ear["norm.weight"], trained.tensors["ear.norm.weight"], atol=1e-2, rtol=1e-2)
    curve_picture(curve(tmp_path, plan), tmp_path / "curves.png", "test")
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")


def test_the_plan_of_the_first_commands_learns(tmp_path: Path) -> None:
    """`--config test` on what `build` makes of it, a fifth as long, on streams and voices it has not heard."""
    folder = tmp_path / "data"
    few = ["--items", "256", "--jobs", "1", "--home", str(tmp_path / "home")]
    assert build.main([*few, str(folder)], Settings()) == 0
    plan = PLANS["test"]
    weights = starting(plan.model, Catalogue(), 1)
    shards = {split: sorted(folder.glob(f"{split}-*.shard")) for split in ("train", "dev")}
    encoder = Encoder(weights.config, weights.part("tower"))
    prepare.encode(encoder, [path for paths in shards.values() for path in paths], lambda *_: None)
    data, dev = map(prepare.read_encoded, shards.values())
    prepare.with_statistics(weights, data)
    points: list[Point] = []
    ear = replace(plan.stages[0], steps=200)
    trained = run(replace(plan, stages=(ear,)), weights, data, tmp_path / "out", every=20, show=points.append)
    assert points[-1].loss < 0.75 * points[0].loss
    assert (points[-1].accuracy or 0) > (points[0].accuracy or 1) + 0.1
    _, events = tune(trained, dev)
    assert events.balanced > 0.55  # always silent, always responding: 0.5


def nothing(seeds: range, weights: Weights) -> list[Encoded]:
    """The same streams, had their tones deserved no response."""
    made = []
    for one in encode(weights, seeds):
        turns = tuple(replace(turn, respond=False, reply="", early=False) for turn in one.item.turns)
        made.append(replace(one, item=replace(one.item, task=WAKE, turns=turns)))
    return made


def check_patience(trained: Weights, weights: Weights, data: list[Encoded]) -> None:
    """Calls that are answered have a threshold of their own."""

    def wakes(threshold: float) -> int:
        return sum(sum(decided) for _, decided in decisions(trained, silent, Mode.ANSWER, threshold))

    silent = nothing(range(200, 208), weights)
    assert wakes(0.2) > 0
    assert patient(trained, data, 0.2) is None  # none of these are streams of a line
    eager = [replace(one, item=replace(one.item, task=WAKE)) for one in data[:2]]  # these deserve responses
    assert patient(trained, eager, 0.2) is None
    chosen = patient(trained, [*silent, *eager], 0.2)
    assert chosen
    assert chosen.threshold > 0.2
    assert chosen.wakes == wakes(chosen.threshold)
    assert chosen.wakes == 0 or chosen.threshold == THRESHOLDS[-1]
    assert all(wakes(lower) for lower in THRESHOLDS if lower < chosen.threshold)
    assert chosen.hits <= chosen.deserving
    assert f"of {chosen.deserving} events" in str(chosen)


def trainer(weights: Weights, data: list[Encoded], directory: Path, stage: Stage = STAGE) -> Trainer:
    plan = Plan(weights.config, (stage,))
    network = Network(weights.config, (stage.tier,))
    network.load(weights.tensors)
    return Trainer(network, stage, memory_of(plan, stage), maker(plan, stage, weights, data), directory)


def test_a_run_that_was_killed_comes_to_the_same_weights(weights: Weights, data: list[Encoded], tmp_path: Path) -> None:
    stage = replace(STAGE, steps=6, warm_up=2, batch=2, accumulate=2, drop=0.2)
    whole = trainer(weights, data, tmp_path / "whole", stage)
    whole.run(every=2)
    trainer(weights, data, tmp_path / "killed", stage).run(until=4, every=2)
    again = trainer(weights, data, tmp_path / "killed", stage)
    assert again.resume()
    assert again.step == 4
    again.run(every=2)
    for (name, one), (_, other) in zip(whole.network.learning(), again.network.learning(), strict=True):
        assert torch.equal(one, other), name
    assert [point.loss for point in whole.curve] == [point.loss for point in again.curve]


def test_a_full_disk_leaves_the_last_checkpoint(weights: Weights, data: list[Encoded], tmp_path: Path) -> None:
    stage = replace(STAGE, steps=4, warm_up=1, batch=1)
    one = trainer(weights, data, tmp_path, stage)
    one.run(until=2, every=2)
    (one.path.parent / f".{one.path.name}.77.part").touch()  # a run was killed before
    with full_disk(20_000), pytest.raises(NotWritten, match=r"the disk is full: .*checkpoint\.pt"):
        one.run(every=2)
    again = trainer(weights, data, tmp_path, stage)
    assert again.resume()
    assert again.step == 2
    assert sorted(path.name for path in one.path.parent.iterdir()) == ["checkpoint.pt", "curve.jsonl"]


@pytest.mark.parametrize("size", [1_000, 20_000])  # less than its words, less than its tensors
def test_a_full_disk_leaves_the_model_that_was_there(weights: Weights, tmp_path: Path, size: int) -> None:
    with full_disk(size), pytest.raises(NotWritten, match=r"the disk is full: .*model"):
        save(weights, tmp_path / "model", 0.5)
    assert not list(tmp_path.iterdir())
    save(weights, tmp_path / "model", 0.5)
    before = {path.name: path.read_bytes() for path in (tmp_path / "model").iterdir()}
    with full_disk(size), pytest.raises(NotWritten):
        save(weights, tmp_path / "model", 0.9)
    assert {path.name: path.read_bytes() for path in (tmp_path / "model").iterdir()} == before
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_a_checkpoint_of_other_settings_is_refused(weights: Weights, data: list[Encoded], tmp_path: Path) -> None:
    stage = replace(STAGE, steps=2, batch=1)
    trainer(weights, data, tmp_path, stage).run()
    with pytest.raises(SoundflowError, match="other settings"):
        trainer(weights, data, tmp_path, replace(stage, decay=0.5)).resume()


def test_a_loss_that_is_no_number_stops_the_run(weights: Weights, data: list[Encoded], tmp_path: Path) -> None:
    one = trainer(weights, data, tmp_path, replace(STAGE, steps=2, batch=1))
    with torch.no_grad():
        one.network.ear.norm.weight.fill_(float("nan"))
    with pytest.raises(SoundflowError, match=r"step 0.*lower rate"):
        one.run()


def test_it_goes_on_at_a_lower_rate(weights: Weights, data: list[Encoded], tmp_path: Path) -> None:
    """As is advised where the loss is no number."""
    stage = replace(STAGE, steps=4, batch=1, warm_up=0)
    trainer(weights, data, tmp_path, stage).run(until=2)
    slower = trainer(weights, data, tmp_path, replace(stage, rate=1e-5))
    assert slower.resume()
    slower.run(every=1)
    assert [point.step for point in slower.curve] == [2, 3, 4]
    assert slower.curve[-1].rate < 1e-5 < slower.curve[0].rate


def test_only_what_a_stage_names_learns(weights: Weights, data: list[Encoded], tmp_path: Path) -> None:
    stage = Stage("adapter", DECODER, (r"tower\.proj\..*",), steps=2, crop=Crop(chunks=8), batch=2, warm_up=1)
    one = trainer(weights, data, tmp_path, stage)
    assert one.names == ["tower.proj.weight", "tower.proj.bias"]
    one.run()
    changed = {
        n
        for n, t in one.network.state_dict().items()
        if n in weights.tensors and not torch.equal(t, weights.tensors[n])
    }
    assert changed == {"tower.proj.weight", "tower.proj.bias"}
    with pytest.raises(ValueError, match="no tensor"):
        Network(TWO_TIERS, (EAR,)).train_only(["nothing"])


def test_an_event_under_way_where_a_crop_begins_is_not_scored() -> None:
    made = item(3)
    turn = next(turn for turn in made.turns if turn.respond)
    rng = np.random.default_rng(1)
    labels, when = targets(made, turn.first_chunk + 1, made.chunks, rng)
    assert when == {}
    assert RESPOND not in labels
    labels, when = targets(made, 0, made.chunks, rng)
    assert list(when.values()) == [turn.last_chunk]
    assert labels[next(iter(when))] == RESPOND
    assert labels[-1] == SILENT


def test_the_rate_warms_up_and_falls_to_nothing() -> None:
    stage = replace(STAGE, steps=100, warm_up=10, rate=1.0)
    rates = [learning_rate(stage, step) for step in range(101)]
    assert rates[0] == pytest.approx(0.1)
    assert max(rates) == rates[10] == rates[9] == 1.0
    assert rates[100] == pytest.approx(0.0)


@pytest.mark.parametrize("config", [SMALL, COMPACT, OMNI_3B], ids=lambda config: config.name)
def test_every_stage_of_every_plan_takes_a_step_in_small_shapes(config: InteractionConfig, tmp_path: Path) -> None:
    plan = PLANS[config.name]
    weights = starting(shrunk(config), Catalogue(), plan.seed)
    points: list[Point] = []
    trained = dry_run(plan, [item(0), item(1)], tmp_path, show=points.append)
    assert [point.stage for point in points] == [stage.name for stage in plan.stages]
    learnt = {name for name, tensor in trained.tensors.items() if not torch.equal(tensor, weights.tensors[name])}
    assert any(name.startswith("decoder.") for name in learnt)
    assert not any(name.startswith(("tower.conv", "tower.layers")) for name in learnt)
