"""The same weights and the same audio through transformers' own forward pass, all at once, give the same tokens."""

from __future__ import annotations

import pytest

pytest.importorskip("torch", reason="the interaction extra (torch, transformers) is not installed: scripts/setup test")

from dataclasses import replace
from itertools import pairwise

import torch
from torch import Tensor
from transformers import Qwen2ForCausalLM
from transformers.models.qwen2_5_omni.configuration_qwen2_5_omni import Qwen2_5OmniAudioEncoderConfig
from transformers.models.qwen2_5_omni.modeling_qwen2_5_omni import Qwen2_5OmniAudioEncoder

from model_worker.interaction.config import TEST, DecoderConfig, InteractionConfig, MemoryConfig
from model_worker.interaction.decoder import Decoder
from model_worker.interaction.make import PUBLISHED_TEST
from tests.model_worker.interaction.audio import CHUNK, in_chunks, sound
from tests.model_worker.interaction.served import DEVICES, PREFIX, checkpoint, listen, serve
from tests.model_worker.interaction.slow import allowed, qwen2
from tests.model_worker.interaction.test_mel import whole
from tests.model_worker.interaction.test_remembering import features

# Nothing is forgotten, and each response is over before the next Chunk: the published layout.
WHOLE = replace(TEST, memory=MemoryConfig(prefix=10, text=200, chunks=20), longest=9, words_a_chunk=11, threshold=0.58)
EARS = replace(WHOLE, tower=PUBLISHED_TEST.tower, threshold=0.5)  # transformers' own encoder hears, too
TIED = replace(WHOLE, decoder=replace(WHOLE.decoder, qkv_bias=False, tied=True))


def transformers_model(config: DecoderConfig, weights: dict[str, Tensor]) -> Qwen2ForCausalLM:
    model = Qwen2ForCausalLM(qwen2(config)).eval()
    ours = {name if name.startswith("lm_head") else f"model.{name}": tensor for name, tensor in weights.items()}
    missing, unexpected = model.load_state_dict(ours, strict=False)
    assert not unexpected
    for name, tensor in model.named_parameters():
        if name in missing and name.endswith("_proj.bias"):
            tensor.data.zero_()  # Llama has none
    assert all(name.endswith("_proj.bias") or (name == "lm_head.weight" and config.tied) for name in missing)
    return model


def encoded(config: InteractionConfig, pcm: Tensor) -> Tensor:
    """Of each Chunk, [n, 10, width], out of the whole at once."""
    tower, chunks = config.tower, len(pcm) // CHUNK
    sizes = Qwen2_5OmniAudioEncoderConfig(
        num_mel_bins=tower.mels,
        d_model=tower.width,
        encoder_attention_heads=tower.heads,
        encoder_layers=tower.layers,
        encoder_ffn_dim=tower.feed_forward,
        output_dim=config.decoder.width,
    )
    encoder = Qwen2_5OmniAudioEncoder(sizes).eval()
    missing, unexpected = encoder.load_state_dict(checkpoint(config).tower, strict=False)
    assert not unexpected
    assert set(missing) <= {"audio_bos_eos_token.weight", "positional_embedding.positional_embedding"}
    frames = torch.from_numpy(whole(pcm, tower.mels)).float()
    states: Tensor = encoder(frames, feature_lens=torch.full((chunks,), 40)).last_hidden_state
    return states.view(chunks, 10, config.decoder.width)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("config", [WHOLE, TIED, EARS], ids=["qwen", "llama", "with its encoder"])
@torch.no_grad()
def test_the_tokens_of_transformers(config: InteractionConfig, device: str) -> None:
    pcm, tokens = sound(1, 16).flip(0), config.tokens  # the loudest first: one level for the whole
    serving = serve(config, device=device)
    [heard] = listen(serving, [(serving.open(PREFIX), 0, in_chunks(pcm))])
    assert 3 <= len(heard.responded) <= 13
    assert not heard.cut

    model = transformers_model(config.decoder, checkpoint(config).decoder)
    embed = model.get_input_embeddings()
    sequence, decided, said = [embed(torch.tensor(PREFIX))], [], []

    def append(rows: Tensor) -> int:
        sequence.append(rows)
        return sum(map(len, sequence)) - 1

    for index, feature in enumerate(encoded(config, pcm) if config is EARS else features(config, pcm)):
        append(embed(torch.tensor([tokens.audio_begin])))
        append(feature)
        decided.append(append(embed(torch.tensor([tokens.assistant]))))
        if index in heard.words:
            written = [tokens.text_begin, *heard.words[index], tokens.text_end]
            said += [(append(embed(torch.tensor([token]))), token) for token in written]
        else:
            append(embed(torch.tensor([tokens.keep_silence])))
    logits = model(inputs_embeds=torch.cat(sequence)[None]).logits[0]

    two = logits[decided][:, [tokens.keep_silence, tokens.text_begin]]
    assert heard.scores == pytest.approx(two.softmax(dim=1)[:, 1].tolist(), abs=1e-3)
    place = 0
    for (position, token), (_, following) in pairwise(said):
        place = 0 if token == tokens.text_begin else place + 1
        if token != tokens.text_end:
            assert following == allowed(config, logits[position], place + 1)


def test_weights_of_another_shape_are_refused() -> None:
    weights = checkpoint(TEST).decoder
    with pytest.raises(RuntimeError, match="control_head"):
        Decoder.of(replace(TEST.decoder, control_head=True), weights)
