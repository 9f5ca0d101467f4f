"""A decoder that learns beside what it is: nothing else moves, serving gets the sum, and little is stored."""

from __future__ import annotations

import pytest

pytest.importorskip("torch", reason="the interaction extra (torch, transformers) is not installed: scripts/setup test")
pytest.importorskip(
    "transformers", reason="the interaction extra (torch, transformers) is not installed: scripts/setup test"
)

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from model_worker.catalogue import Catalogue, ModelMissing
from model_worker.interaction.checkpoint import load
from model_worker.interaction.config import COMPACT, TEST
from model_worker.interaction.make import make_tokenizer
from model_worker.interaction.tokens import LOSS_MASK
from soundflow.base import Weights
from soundflow.errors import SoundflowError
from soundflow.features import Encoded, Encoder
from soundflow.items import Item
from soundflow.train.examples import Crop
from soundflow.train.loop import Trainer, batched
from soundflow.train.low_rank import marker_rows, merged
from soundflow.train.network import DECODER, Network, Weighting
from soundflow.train.prepare import starting
from soundflow.train.run import maker, memory_of, run, save
from soundflow.train.stages import LOW_RANK, Plan, Stage
from soundflow.train.start import trained
from tests.soundflow.making import made_item

RANK = 3
CONFIG = replace(TEST, decoder=replace(TEST.decoder, tied=True))
STAGE = Stage("writer", DECODER, LOW_RANK, steps=3, crop=Crop(chunks=12, told=True), rate=1e-2, warm_up=1, batch=2)
PLAN = Plan(CONFIG, (STAGE, replace(STAGE, name="again")), rank=RANK)


@pytest.fixture(scope="module")
def weights() -> Weights:
    return starting(CONFIG, Catalogue(), 1)


@pytest.fixture(scope="module")
def data(weights: Weights) -> list[Encoded]:
    items = [made_item(seed) for seed in range(4)]
    states = Encoder(weights.config, weights.part("tower")).states(items)
    return [Encoded(item, own) for item, own in zip(items, states, strict=True)]


def test_only_what_stands_beside_learns_and_two_stages_stay_of_one_rank(
    weights: Weights, data: list[Encoded], tmp_path: Path
) -> None:
    after = run(PLAN, weights, data, tmp_path).tensors
    assert after.keys() == weights.tensors.keys()
    changed = {name for name, tensor in after.items() if not torch.equal(tensor, weights.tensors[name])}
    matrices = {name for name in after if name.startswith("decoder.layers.") and name.endswith("proj.weight")}
    assert changed == {*matrices, "decoder.embed_tokens.weight", "tower.proj.weight", "tower.proj.bias"}
    for name in matrices:
        assert torch.linalg.matrix_rank(after[name] - weights.tensors[name], atol=1e-4) <= RANK
    moved = (after["decoder.embed_tokens.weight"] != weights.tensors["decoder.embed_tokens.weight"]).any(dim=1)
    assert not moved[: -marker_rows(CONFIG)].any()
    assert moved[CONFIG.tokens.text_end]


def test_a_run_that_was_killed_comes_to_the_same_weights_and_no_other_rank_goes_on(
    weights: Weights, data: list[Encoded], tmp_path: Path
) -> None:
    def trainer(plan: Plan, folder: str) -> Trainer:
        network = Network(CONFIG, (DECODER,), plan.rank, plan.seed)
        network.load(weights.tensors)
        make = maker(plan, STAGE, weights, data)
        return Trainer(network, STAGE, memory_of(plan, STAGE), make, tmp_path / folder)

    whole = trainer(PLAN, "whole")
    whole.run(every=1)
    trainer(PLAN, "killed").run(until=2, every=1)
    again = trainer(replace(PLAN, seed=7), "killed")  # begun elsewhere: all that learns is in the checkpoint
    assert again.resume()
    again.run(every=1)
    for (name, one), (_, other) in zip(whole.network.learning(), again.network.learning(), strict=True):
        assert torch.equal(one, other), name
    with pytest.raises(SoundflowError, match="another shape or rank"):
        trainer(replace(PLAN, rank=RANK + 1), "killed").resume()


def test_what_serves_says_what_was_trained(weights: Weights, data: list[Encoded]) -> None:
    lowered = Network(CONFIG, (DECODER,), RANK, seed=5)
    lowered.load(weights.tensors)
    rng = np.random.default_rng(1)
    make = maker(PLAN, STAGE, weights, data)
    batch, heard = batched([make(rng) for _ in range(3)], CONFIG.memory)
    plain = Network(CONFIG, (DECODER,))
    plain.load(weights.tensors)
    given = (DECODER, batch, heard, Weighting())
    torch.testing.assert_close(lowered(*given).total, plain(*given).total)  # it begins as what it was
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for name, parameter in lowered.named_parameters():
            if name.endswith((".up", ".markers")):
                parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
    beside = {name: t for name, t in lowered.state_dict().items() if name.endswith((".up", ".down", ".markers"))}
    plain.load(merged(weights.tensors | beside))
    torch.testing.assert_close(lowered(*given).total, plain(*given).total, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("finished", [False, True])
def test_a_told_crop_ends_with_a_response(weights: Weights, data: list[Encoded], finished: bool) -> None:
    rng = np.random.default_rng(3)
    silent = [replace(one, item=without_responses(one.item)) for one in data]
    make = maker(PLAN, replace(STAGE, finished=finished), weights, [*data, *silent, *silent])
    for _ in range(20):
        example = make(rng)
        assert int(example.layout.ids[-1]) == CONFIG.tokens.text_end
        assert (example.layout.words != LOSS_MASK).any()
        assert (example.layout.words == CONFIG.tokens.text_end).any()
        assert (example.layout.words >= 0).sum() > 2  # an emotion, words, and their end
        if not finished:
            assert example.layout.chunk.max() == len(example.states) - 1


def test_where_nothing_is_said_no_writer_is_trained_and_a_share_is_kept(
    weights: Weights, data: list[Encoded], tmp_path: Path
) -> None:
    silent = [replace(one, item=without_responses(one.item)) for one in data]
    with pytest.raises(SoundflowError, match="no stream has a response"):
        run(PLAN, weights, silent, tmp_path)
    rng = np.random.default_rng(4)
    short = [replace(data[0], states=data[0].states * 0)]
    make = maker(PLAN, STAGE, weights, [*short, *silent, *silent], data[1:], 0.5)
    from_data = sum(bool((make(rng).states == 0).all()) for _ in range(200))
    assert 70 < from_data < 130  # whatever is drawn again is drawn from the same


def without_responses(item: Item) -> Item:
    turns = tuple(replace(turn, respond=False, reply="", early=False) for turn in item.turns)
    return replace(item, turns=turns)


def test_of_a_tuned_language_model_a_few_megabytes_are_stored(tmp_path: Path) -> None:
    find = Catalogue().path
    weights, name = slightly_tuned()
    save(weights, tmp_path, threshold=0.3, find=find)
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) < 20e6
    back = trained(str(tmp_path), find)
    for tensor in (name, "decoder.embed_tokens.weight", "ear.norm.weight", "decoder.norm.weight"):
        torch.testing.assert_close(back.tensors[tensor], weights.tensors[tensor], atol=1e-3, rtol=1e-2)
    assert load(tmp_path, find=find).config.threshold == 0.3
    assert make_tokenizer().get_vocab_size() != back.tokenizer.get_vocab_size()  # it is the language model's own


def test_a_model_that_is_stored_as_differences_is_tuned_and_stored_as_them_again(tmp_path: Path) -> None:
    weights, name = slightly_tuned()
    find = Catalogue().path
    save(weights, tmp_path / "first", threshold=0.3, find=find)
    before = trained(str(tmp_path / "first"), find)
    item = made_item(1, 12)
    data = [Encoded(item, Encoder(COMPACT, before.part("tower")).states([item])[0])]
    plan = Plan(COMPACT, (replace(STAGE, steps=1, batch=1, rate=1e-3),), rank=2)
    after = run(plan, before, data, tmp_path / "run")
    save(after, tmp_path / "tuned", threshold=0.3, find=find)
    assert sum(path.stat().st_size for path in (tmp_path / "tuned").iterdir()) < 30e6
    back = trained(str(tmp_path / "tuned"), find).tensors
    for matrix in ("decoder.layers.3.mlp.up_proj.weight", "decoder.embed_tokens.weight", "tower.proj.weight"):
        learnt = after.tensors[matrix] - before.tensors[matrix]
        kept = back[matrix] - before.tensors[matrix]
        assert learnt.abs().max() > 0
        assert (kept - learnt).norm() < 0.2 * learnt.norm(), matrix  # what was learnt is kept, but for its rounding
    torch.testing.assert_close(back[name], after.tensors[name], atol=1e-3, rtol=1e-2)


def slightly_tuned() -> tuple[Weights, str]:
    """A language model of which one matrix has learnt something, and that matrix's name."""
    try:
        weights = starting(COMPACT, Catalogue(), 1)
    except ModelMissing as error:
        pytest.skip(str(error))
    name, generator = "decoder.layers.7.mlp.up_proj.weight", torch.Generator().manual_seed(1)
    narrow = torch.randn(1536, 4, generator=generator) @ torch.randn(4, 576, generator=generator)
    weights.tensors[name] = weights.tensors[name] + 0.01 * narrow
    return weights, name
