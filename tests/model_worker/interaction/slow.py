"""docs/decisions/0009 word by word: one call, a list of what it remembers, no slots, rings, batches or padding."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import Qwen2Config
from transformers.models.qwen2.modeling_qwen2 import Qwen2RotaryEmbedding, apply_rotary_pos_emb

from model_worker.interaction.config import EAR_TOKENS, DecoderConfig, InteractionConfig, MemoryConfig
from model_worker.interaction.tokens import EMOTIONS
from tests.model_worker.interaction.served import Heard


def qwen2(config: DecoderConfig) -> Qwen2Config:
    """As transformers calls the same sizes."""
    return Qwen2Config(
        vocab_size=config.vocabulary,
        hidden_size=config.width,
        num_hidden_layers=config.layers,
        num_attention_heads=config.heads,
        num_key_value_heads=config.kv_heads,
        head_dim=config.head_width,
        intermediate_size=config.feed_forward,
        rms_norm_eps=config.norm_eps,
        rope_parameters={"rope_type": "default", "rope_theta": config.rope_theta},
        tie_word_embeddings=config.tied,
        attn_implementation="eager",
    )


@dataclass
class Kept:
    """A token that is remembered. Its order is (Chunk, place within the Chunk and its response)."""

    order: tuple[int, int]
    embedding: Tensor
    keys: list[Tensor] = field(default_factory=list)  # a layer each, [kv_heads, head_width], not rotated
    values: list[Tensor] = field(default_factory=list)


class SlowTier:
    """Appends tokens one by one and attends over a list."""

    def __init__(self, config: DecoderConfig, memory: MemoryConfig, weights: dict[str, Tensor]) -> None:
        self.config, self.memory, self.weights = config, memory, weights
        self.sizes = qwen2(config)
        self.rotary = Qwen2RotaryEmbedding(self.sizes)
        self.prefix: list[Kept] = []
        self.text: list[Kept] = []
        self.chunks: list[list[Kept]] = []
        self.furthest = 0  # position ever used

    def embed(self, token: int) -> Tensor:
        return self.weights["embed_tokens.weight"][token]

    def begin(self, tokens: Sequence[int]) -> None:
        for place, token in enumerate(tokens):
            self.prefix.append(Kept((-1, place), self.embed(token)))
            self.run(self.prefix[-1])

    def hear(self, number: int, control: int | None, tokens: Sequence[Tensor]) -> Tensor:
        """The control token of the Chunk before, if it has one, then a Chunk. The state of the last token."""
        self.chunks = self.chunks[-(self.memory.chunks - 1) :]
        if control is not None:
            self.chunks[-1].append(Kept((number - 1, len(tokens)), self.embed(control)))
            self.run(self.chunks[-1][-1])
        self.chunks.append([])
        for place, token in enumerate(tokens):
            self.chunks[-1].append(Kept((number, place), token))
            state = self.run(self.chunks[-1][-1])
        return state

    def write(self, number: int, said: int, token: int) -> Tensor:
        self.text = [*self.text, Kept((number, 100 + said), self.embed(token))][-self.memory.text :]
        return self.run(self.text[-1])

    def run(self, new: Kept) -> Tensor:
        everything = [*self.prefix, *self.text, *(token for chunk in self.chunks for token in chunk)]
        seen = sorted((token for token in everything if token.order <= new.order), key=lambda token: token.order)
        assert seen[-1] is new
        self.furthest = max(self.furthest, len(seen) - 1)
        x = new.embedding
        for layer in range(self.config.layers):
            x = x + self.attend(layer, self.norm(f"layers.{layer}.input_layernorm", x), new, seen)
            x = x + self.feed_forward(layer, self.norm(f"layers.{layer}.post_attention_layernorm", x))
        return self.norm("norm", x)

    def attend(self, layer: int, x: Tensor, new: Kept, seen: Sequence[Kept]) -> Tensor:
        config, name = self.config, f"layers.{layer}.self_attn."

        def project(which: str) -> Tensor:
            bias = self.weights.get(f"{name}{which}_proj.bias")
            return F.linear(x, self.weights[f"{name}{which}_proj.weight"], bias).view(-1, config.head_width)

        new.keys.append(project("k"))
        new.values.append(project("v"))
        keys = torch.stack([token.keys[layer] for token in seen], dim=1)  # [kv_heads, tokens, head_width]
        values = torch.stack([token.values[layer] for token in seen], dim=1)
        cos, sin = self.rotary(keys[None], torch.arange(len(seen))[None])
        queries, _ = apply_rotary_pos_emb(project("q")[None, :, None], keys[None], cos[:, -1:], sin[:, -1:])
        _, keys = apply_rotary_pos_emb(keys[None], keys[None], cos, sin)
        heads = []
        for head in range(config.heads):
            group = head // (config.heads // config.kv_heads)
            scores = keys[0, group] @ queries[0, head, 0] / math.sqrt(config.head_width)
            heads.append(scores.softmax(dim=0) @ values[group])
        return F.linear(torch.cat(heads), self.weights[name + "o_proj.weight"])

    def feed_forward(self, layer: int, x: Tensor) -> Tensor:
        gate, up, down = (self.weights[f"layers.{layer}.mlp.{part}_proj.weight"] for part in ("gate", "up", "down"))
        return F.linear(F.silu(F.linear(x, gate)) * F.linear(x, up), down)

    def norm(self, name: str, x: Tensor) -> Tensor:
        return F.rms_norm(x, x.shape, self.weights[name + ".weight"], self.config.norm_eps)

    def words(self, state: Tensor) -> Tensor:
        return F.linear(state, self.weights["embed_tokens.weight" if self.config.tied else "lm_head.weight"])

    def score(self, state: Tensor, silent: int, respond: int) -> float:
        if self.config.control_head:
            logits = F.linear(state, self.weights["control_head.weight"])
        else:
            logits = self.words(state)[[silent, respond]]
        return float(logits.softmax(dim=0)[1])


def allowed(config: InteractionConfig, logits: Tensor, said: int) -> int:
    """The likeliest token that may stand after so many tokens of a response, TEXT_BEGIN the first of them."""
    tokens = config.tokens
    if said > config.longest:
        return tokens.text_end
    forbidden = {getattr(tokens, name) for name in tokens.__dataclass_fields__} - {tokens.text_end}
    if said == 1:
        forbidden -= {getattr(tokens, emotion) for emotion in EMOTIONS}
    return next(token for token in logits.argsort(descending=True, stable=True).tolist() if token not in forbidden)


@torch.no_grad()
def listen_slowly(
    config: InteractionConfig,
    decoder: dict[str, Tensor],
    ear: dict[str, Tensor],
    prefix: Sequence[int],
    features: Sequence[Tensor],
    mode: str = "answer",
    follow: Heard | None = None,
) -> tuple[Heard, SlowTier]:
    """One ear's whole life, from the features [10, width] of its Chunks.

    `follow`: a life that decided and chose in fewer bits. Its choices are taken instead of ours, and by how much each
    token's logit is below that of the likeliest is noted in `behind`.
    """
    tokens, life = config.tokens, Heard()
    voice = SlowTier(config.decoder, config.memory, decoder)
    voice.begin(prefix)
    judge = voice
    if config.ear and config.ear_memory:
        judge = SlowTier(config.ear, config.ear_memory, ear)
        judge.begin([EAR_TOKENS.index(mode)])
    unheard: list[tuple[Tensor, bool]] = []
    silent = respond = False
    number = -1  # of the last Chunk that the tier that speaks has heard
    response = text_chunk = said = next_token = -1
    speaking = False
    ear_control: int | None = None
    for index, feature in enumerate(features):
        if judge is voice:
            number += 1
            around = voice.embed(tokens.audio_begin), voice.embed(tokens.assistant)
            state = voice.hear(number, tokens.keep_silence if silent else None, [around[0], *feature, around[1]])
            score = voice.score(state, tokens.keep_silence, tokens.text_begin)
        else:
            heard = F.linear(feature, ear["features.weight"], ear["features.bias"])
            state = judge.hear(index, ear_control, [judge.embed(0), *heard, judge.embed(1)])
            score = judge.score(state, 2, 3)
        respond = score > config.threshold if follow is None else index in follow.responded
        life.scores.append(score)
        if judge is voice:
            silent = not respond
        else:
            ear_control = 3 if respond else 2
            unheard = [*unheard, (feature, respond)][-config.memory.chunks :]
        if respond:
            if speaking and next_token != tokens.text_end:
                life.ended.append(response)
                life.cut.append(response)
            for waited, responded in unheard:
                number += 1
                around = voice.embed(tokens.audio_begin), voice.embed(tokens.assistant)
                voice.hear(number, tokens.keep_silence if silent else None, [around[0], *waited, around[1]])
                silent = not responded
            unheard = []
            life.responded.append(index)
            life.words[index] = []
            response, text_chunk, said, next_token, speaking = index, number, 0, tokens.text_begin, True
        for _ in range(config.words_a_chunk):
            if not speaking:
                break
            written = next_token
            logits = voice.words(voice.write(text_chunk, said, written))
            said += 1
            if written == tokens.text_end:
                speaking = False
                break
            next_token = allowed(config, logits, said)
            if follow is not None:
                likeliest, told = next_token, follow.words[response][len(life.words[response]) :]
                next_token = told[0] if told else tokens.text_end
                life.behind.append(float(logits[likeliest] - logits[next_token]))
            if next_token == tokens.text_end:
                life.ended.append(response)
            else:
                life.words[response].append(next_token)
    return life, voice
