"""Random checkpoints: the same for the same seed, and of sensible sizes inside."""

from __future__ import annotations

import pytest

pytest.importorskip("torch", reason="the interaction extra (torch, transformers) is not installed: scripts/setup test")
pytest.importorskip(
    "transformers", reason="the interaction extra (torch, transformers) is not installed: scripts/setup test"
)

import hashlib
import math
from dataclasses import replace
from pathlib import Path

import torch

from model_worker.interaction.checkpoint import load, recognise
from model_worker.interaction.config import COMPACT, OMNI_3B, PRESETS, TEST
from model_worker.interaction.formats.shapes import model_shapes
from model_worker.interaction.make import main, make_omni
from model_worker.interaction.perception import Perception
from model_worker.interaction.random_weights import RandomWeights
from tests.model_worker.interaction.audio import in_chunks, sound


def digests(directory: Path) -> dict[str, str]:
    files = [path for path in directory.rglob("*") if path.is_file()]
    return {str(path.relative_to(directory)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.mark.parametrize("form", ["native", "published", "omni"])
def test_the_command_makes_the_same_files_for_the_same_seed(form: str, tmp_path: Path) -> None:
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        main(["--format", form, "--size", "test", "--seed", str(seed), str(tmp_path / name)])
    a, b, c = (digests(tmp_path / name) for name in "abc")
    assert a == b
    assert {name for name in a if a[name] != c[name]} >= {name for name in a if name.endswith((".safetensors", ".pth"))}
    assert recognise(tmp_path / "a") == form
    assert load(tmp_path / "a").format == form


@pytest.mark.parametrize("options", [["--format", "omni", "--size", "3b"], ["--older"], ["--size", "huge"]])
def test_what_cannot_be_made_is_refused(options: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main([*options, str(tmp_path)])
    assert caught.value.code == 2
    assert "error:" in capsys.readouterr().err


def test_help_shows_examples(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--help"])
    assert "--size 3b --seed 1" in capsys.readouterr().out


def test_a_model_of_ours_is_not_written_in_a_format_of_others(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="only in our own"):
        make_omni(tmp_path, RandomWeights(COMPACT, seed=1))


def test_the_presets_have_the_sizes_they_are_named_after() -> None:
    def millions(name: str, part: str) -> float:
        shapes = model_shapes(PRESETS[name])
        return sum(math.prod(shape) for key, shape in shapes.items() if key.startswith(part)) / 1e6

    assert millions("compact", "decoder.") == pytest.approx(134.5, rel=0.01)  # SmolLM2-135M
    assert millions("compact", "ear.") == pytest.approx(2.6, rel=0.1)
    assert millions("3b", "decoder.") == pytest.approx(3_397, rel=0.01)  # Qwen2.5-3B with an output layer of its own
    assert millions("3b", "tower.") == pytest.approx(640, rel=0.02)
    assert model_shapes(OMNI_3B)["decoder.layers.35.self_attn.k_proj.weight"] == (256, 2048)


def test_numbers_have_a_sensible_size() -> None:
    weights = dict(RandomWeights(TEST, seed=7, dtype=torch.float32).all())
    ears = Perception(TEST, 1)
    ears.load({name.removeprefix("tower."): made for name, made in weights.items() if name.startswith("tower.")})
    chunks = in_chunks(sound(1, 3))
    features = torch.cat([ears.hear(torch.tensor([0]), chunk[None]) for chunk in chunks])
    embeddings = weights["decoder.embed_tokens.weight"]
    assert 0.3 < features.square().mean().sqrt() / embeddings.square().mean().sqrt() < 3
    # Another sound is heard as something else.
    assert (features[0] - features[2]).abs().mean() > 0.1 * features.abs().mean()


def test_a_tensor_depends_on_its_seed_and_name_alone() -> None:
    one, other = RandomWeights(TEST, seed=1), RandomWeights(replace(TEST, name="other"), seed=1)
    name = "decoder.layers.1.mlp.up_proj.weight"
    assert torch.equal(one.make(name, (192, 96)), other.make(name, (192, 96)))
    assert not torch.equal(one.make(name, (192, 96)), RandomWeights(TEST, seed=2).make(name, (192, 96)))
