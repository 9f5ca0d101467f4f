"""Three formats, one model; and no model at all out of a wrong or partial checkpoint."""

from __future__ import annotations

import pytest

pytest.importorskip("torch", reason="the interaction extra (torch, transformers) is not installed: scripts/setup test")
pytest.importorskip(
    "transformers", reason="the interaction extra (torch, transformers) is not installed: scripts/setup test"
)

import json
import pickle
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import yaml
from safetensors.torch import load as load_bytes
from safetensors.torch import save_file
from torch import Tensor
from transformers import Qwen2_5OmniConfig, Qwen2_5OmniThinkerForConditionalGeneration, Qwen2Config, Qwen2ForCausalLM
from transformers.models.qwen2_5_omni.modeling_qwen2_5_omni import Qwen2_5OmniForConditionalGeneration

from model_worker.interaction.checkpoint import CheckpointError, load, recognise
from model_worker.interaction.config import COMPACT, EAR_TOKENS, TEST, InteractionConfig
from model_worker.interaction.decoder import Decoder
from model_worker.interaction.formats import native, published
from model_worker.interaction.formats.weights import INDEX
from model_worker.interaction.make import PUBLISHED_TEST, make_native, make_omni, make_published, make_tokenizer
from model_worker.interaction.perception import Perception
from model_worker.interaction.random_weights import RandomWeights
from model_worker.interaction.tokens import PUBLISHED

TWO_TIERS = replace(
    TEST,
    ear=replace(TEST.decoder, vocabulary=len(EAR_TOKENS), width=32, layers=2, tied=True, control_head=True),
    ear_memory=COMPACT.ear_memory,
)
SMALL_VOCABULARY = replace(TEST, decoder=replace(TEST.decoder, tied=True, qkv_bias=False))


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One random model in every format."""
    root = tmp_path_factory.mktemp("checkpoints")
    weights = RandomWeights(PUBLISHED_TEST, seed=3)
    make_native(root / "native", weights)
    make_published(root / "published", weights)
    make_published(root / "older", weights, older=True)
    make_omni(root / "omni", weights)
    return {path.name: path for path in root.iterdir()}


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    make_native(tmp_path / "tiny", RandomWeights(TEST, seed=1))
    return tmp_path / "tiny"


def copied(directory: Path, to: Path) -> Path:
    return Path(shutil.copytree(directory, to / directory.name))


def refusal(directory: Path) -> str:
    with pytest.raises(CheckpointError) as caught:
        load(directory)
    return str(caught.value)


# --- what loads ------------------------------------------------------------------------------------------------------


def test_all_formats_give_the_same_model(stored: dict[str, Path]) -> None:
    ours = load(stored["native"])
    assert ours.config == PUBLISHED_TEST
    for name in ("published", "older", "omni"):
        theirs = load(stored[name])
        assert theirs.format == recognise(stored[name]) == ("published" if name == "older" else name)
        assert theirs.config.tower == ours.config.tower
        assert theirs.config.decoder == ours.config.decoder
        assert theirs.config.tokens == PUBLISHED
        for part in ("tower", "decoder"):
            mine, other = getattr(ours, part), getattr(theirs, part)
            assert mine.keys() == other.keys()
            assert all(torch.equal(mine[key], other[key]) for key in mine)
        assert theirs.tokenizer.to_str() == ours.tokenizer.to_str()


def test_fused_rows_lie_as_litgpt_lays_them() -> None:
    """By hand, for two groups of two queries, one row a head."""
    config = replace(PUBLISHED_TEST.decoder, heads=4, kv_heads=2, head_width=1)
    now = ["q0", "q1", "q2", "q3", "k0", "k1", "v0", "v1"]
    formerly = ["q0", "q1", "k0", "v0", "q2", "q3", "k1", "v1"]
    for rows, layout in ((published.side_by_side(config), now), (published.interleaved(config), formerly)):
        taken = [[layout[row] for row in torch.as_tensor(part).tolist()] for part in rows]
        assert taken == [["q0", "q1", "q2", "q3"], ["k0", "k1"], ["v0", "v1"]]


def test_the_names_inside_are_transformers_qwen2(stored: dict[str, Path]) -> None:
    checkpoint = load(stored["published"])
    sizes = checkpoint.config.decoder
    model = Qwen2ForCausalLM(
        Qwen2Config(
            vocab_size=sizes.vocabulary,
            hidden_size=sizes.width,
            num_hidden_layers=sizes.layers,
            num_attention_heads=sizes.heads,
            num_key_value_heads=sizes.kv_heads,
            intermediate_size=sizes.feed_forward,
            tie_word_embeddings=False,
        )
    )
    weights = {name if name.startswith("lm_head") else f"model.{name}": w for name, w in checkpoint.decoder.items()}
    model.load_state_dict(weights)  # strict: raises for a name too many or too few
    Perception(checkpoint.config, 1).load(checkpoint.tower)


def test_what_transformers_saved_is_loaded(stored: dict[str, Path], tmp_path: Path) -> None:
    config = Qwen2_5OmniConfig.from_pretrained(stored["omni"])
    torch.manual_seed(9)
    model = Qwen2_5OmniForConditionalGeneration(config)
    model.save_pretrained(tmp_path, max_shard_size="4MB")
    make_tokenizer().save(str(tmp_path / "tokenizer.json"))
    checkpoint = load(tmp_path)
    theirs = model.thinker.model
    for name, tensor in checkpoint.decoder.items():
        there = model.thinker.lm_head if name == "lm_head.weight" else theirs.language_model
        assert torch.equal(tensor, there.state_dict()[name.removeprefix("lm_head.")])
    for name, tensor in checkpoint.tower.items():
        assert torch.equal(tensor, theirs.audio_tower.state_dict()[name])


def test_transformers_loads_what_we_made(stored: dict[str, Path]) -> None:
    config = Qwen2_5OmniConfig.from_pretrained(stored["omni"]).thinker_config
    assert config.text_config.hidden_size == 32
    model, about = Qwen2_5OmniThinkerForConditionalGeneration.from_pretrained(
        stored["omni"], config=config, output_loading_info=True
    )
    assert {name.split(".visual.")[0] for name in about["missing_keys"]} == {"model"}
    assert not about["unexpected_keys"]
    ours = load(stored["omni"]).decoder["layers.2.mlp.up_proj.weight"]
    assert torch.equal(model.model.language_model.layers[2].mlp.up_proj.weight.float(), ours)


@pytest.mark.parametrize("config", [TEST, TWO_TIERS, SMALL_VOCABULARY], ids=["one tier", "two tiers", "tied"])
def test_our_own_format_keeps_everything(config: InteractionConfig, tmp_path: Path) -> None:
    weights = RandomWeights(config, seed=4)
    native.save(tmp_path, config, weights.all(), make_tokenizer(), shard=100_000)
    assert len(list(tmp_path.glob("*.safetensors"))) > 3
    checkpoint = load(tmp_path, dtype=torch.bfloat16)
    assert checkpoint.config == config
    parts = {"tower": checkpoint.tower, "decoder": checkpoint.decoder, "ear": checkpoint.ear}
    loaded = {f"{part}.{name}": tensor for part, tensors in parts.items() for name, tensor in tensors.items()}
    made = dict(weights.all())
    assert loaded.keys() == made.keys()
    assert all(torch.equal(loaded[name], made[name]) for name in made)
    assert ("decoder.lm_head.weight" in made) != config.decoder.tied
    if config.ear:
        Decoder.of(config.ear, checkpoint.ear, features=config.decoder.width)
    Decoder.of(config.decoder, checkpoint.decoder)


def test_weights_come_in_the_type_that_is_asked_for(tiny: Path) -> None:
    for dtype in (torch.float32, torch.bfloat16):
        checkpoint = load(tiny, dtype=dtype)
        assert {tensor.dtype for tensor in (*checkpoint.tower.values(), *checkpoint.decoder.values())} == {dtype}


def test_any_text_goes_through_the_tokenizer_unchanged(tiny: Path) -> None:
    tokenizer = load(tiny).tokenizer
    text = "Order 4711, naïve café: 你好 \n"
    ids = tokenizer.encode(text).ids
    assert tokenizer.decode(ids) == text
    assert max(ids) < min(TEST.as_dict()["tokens"].values())


# --- what is refused -------------------------------------------------------------------------------------------------


def edit(directory: Path, change: Callable[[dict[str, Tensor]], None]) -> None:
    """Change the tensors of an indexed checkpoint; all of them go into its first file."""
    shards = sorted(directory.glob("*.safetensors"))
    tensors = {name: tensor for shard in shards for name, tensor in load_bytes(shard.read_bytes()).items()}
    change(tensors)
    save_file(tensors, shards[0])
    for shard in shards[1:]:
        save_file({}, shard)


def test_missing_misshapen_and_unknown_tensors_are_all_listed(stored: dict[str, Path], tmp_path: Path) -> None:
    directory = copied(stored["published"], tmp_path)

    def spoil(tensors: dict[str, Tensor]) -> None:
        del tensors["transformer.h.1.attn.qkv.weight"]
        tensors["transformer.ln_f.weight"] = torch.ones(31)
        tensors["transformer.h.0.attn.gate.weight"] = torch.ones(2)

    edit(directory, spoil)
    text = refusal(directory)
    assert "Tensors missing (3):" in text
    for kind in "qkv":
        assert f"decoder.layers.1.self_attn.{kind}_proj.weight" in text
    assert "transformer.ln_f.weight is [31], should be [32]" in text
    assert "Tensors unknown or there twice (1):\n  transformer.h.0.attn.gate.weight" in text
    assert "Fetch all of its files again" in text


def test_a_long_list_is_cut_with_its_count(stored: dict[str, Path], tmp_path: Path) -> None:
    directory = copied(stored["omni"], tmp_path)
    (directory / "model-00002-of-00002.safetensors").unlink()
    index = json.loads((directory / INDEX).read_text())
    index["weight_map"] = dict.fromkeys(index["weight_map"], "model-00001-of-00002.safetensors")
    (directory / INDEX).write_text(json.dumps(index))
    text = refusal(directory)
    count = int(text.split("Tensors missing (")[1].split(")")[0])
    assert count > 20
    assert f"and {count - 20} more" in text


def test_a_missing_shard_and_a_missing_tower_are_named(stored: dict[str, Path], tmp_path: Path) -> None:
    directory = copied(stored["published"], tmp_path)
    (directory / "model-00002-of-00002.safetensors").unlink()
    assert "model-00002-of-00002.safetensors" in refusal(directory)
    directory = copied(stored["older"], tmp_path)
    (directory / published.TOWER).unlink()
    assert published.TOWER in refusal(directory)
    (directory / "qwen25OmniConfig" / "config.json").unlink()
    assert "qwen25OmniConfig/config.json" in refusal(directory)


def test_a_file_that_was_cut_off_is_refused(stored: dict[str, Path], tmp_path: Path) -> None:
    for name, file in (("omni", "model-00001-of-00002.safetensors"), ("older", published.DECODER)):
        directory = copied(stored[name], tmp_path)
        path = directory / file
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        assert "Fetch it again" in refusal(directory)


class Bomb:
    def __reduce__(self) -> tuple[Any, ...]:
        return (Path("exploded").touch, ())


def test_nothing_in_a_pickle_is_executed(
    stored: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = copied(stored["older"], tmp_path)
    monkeypatch.chdir(tmp_path)
    torch.save({"conv1.weight": Bomb()}, directory / published.TOWER)
    assert "reads safely" in refusal(directory)
    (directory / published.TOWER).write_bytes(pickle.dumps({"conv1.weight": Bomb()}))
    assert "reads safely" in refusal(directory)
    torch.save({"conv1.weight": 3}, directory / published.TOWER)
    assert "more than tensors" in refusal(directory)
    assert not Path("exploded").exists()


def test_a_changed_file_is_not_what_the_manifest_lists(tiny: Path) -> None:
    path = tiny / "model.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    assert "model.safetensors is not what manifest.json lists" in refusal(tiny)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"version": 2}, "version 2"),
        ({"format": "other"}, "'other'"),
        ({"files": {}}, "not all files"),
        ({"config": {"name": "x"}}, "not one that this offhook knows"),
        ({"files": {"tokenizer.json": {}, "../../secret.safetensors": {}}}, "outside itself"),
    ],
)
def test_a_manifest_of_another_kind_is_refused(change: dict[str, Any], says: str, tiny: Path) -> None:
    path = tiny / native.MANIFEST
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    assert says in refusal(tiny)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"norm_class_name": "LayerNorm"}, "norm_class_name is 'LayerNorm'"),
        ({"n_embd": None}, "n_embd is None"),
        ({"padded_vocab_size": 1_000}, "no place for the marker"),
        ({"n_layer": 4}, "decoder.layers.3.input_layernorm.weight"),
        ({"n_embd": 64}, "output_dim is 32"),
    ],
)
def test_a_decoder_of_another_kind_is_refused(
    change: dict[str, Any], says: str, stored: dict[str, Path], tmp_path: Path
) -> None:
    directory = copied(stored["published"], tmp_path)
    path = directory / published.CONFIG
    path.write_text(yaml.safe_dump(yaml.safe_load(path.read_text()) | change))
    assert says in refusal(directory)


def test_quantised_weights_are_refused(tmp_path: Path) -> None:
    weights = ((n, t.to(torch.int8) if "up_proj" in n else t) for n, t in RandomWeights(TEST, seed=1).all())
    native.save(tmp_path, TEST, weights, make_tokenizer())
    assert "stored as torch.int8" in refusal(tmp_path)


def test_a_tokenizer_of_another_model_is_refused(stored: dict[str, Path], tmp_path: Path) -> None:
    directory = copied(stored["omni"], tmp_path)
    (directory / "tokenizer.json").write_text("{}")
    assert "is no tokenizer" in refusal(directory)
    (directory / "tokenizer.json").unlink()
    assert "tokenizer.json" in refusal(directory)


def test_a_directory_that_is_no_checkpoint_says_what_one_is(tmp_path: Path) -> None:
    for directory in (tmp_path, tmp_path / "nowhere"):
        assert "manifest.json, model_config.yaml, config.json" in refusal(directory)
    (tmp_path / "config.json").write_text('{"model_type": "whisper"}')
    assert "not the configuration of a Qwen2.5-Omni model" in refusal(tmp_path)
