"""What trains: the tower's own heads, the decoder and the ear, and the two-term loss over them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model_worker.interaction.config import InteractionConfig
from model_worker.interaction.decoder import Decoder
from model_worker.interaction.tier import Markers
from model_worker.interaction.tokens import LOSS_MASK
from model_worker.interaction.tower import Tower
from soundflow.items import EITHER, RESPOND
from soundflow.train.low_rank import lower, lowered
from soundflow.train.parallel import Batch, states

EAR, DECODER = "ear", "decoder"
"""The tiers."""


@dataclass(frozen=True, slots=True)
class Weighting:
    """L = mean(text) + control * mean(control), arXiv 2606.05121; there the best `control` is 1. Decisions to respond
    are rare, so each counts `respond` times."""

    control: float = 1.0
    respond: float = 4.0


@dataclass(frozen=True, slots=True)
class Loss:
    """Of one batch. `total` has gradients; the others are numbers to be shown, None where nothing was scored."""

    total: Tensor
    words: float | None
    control: float | None
    scores: Tensor  # [n] P(respond) of the scored decisions
    right: Tensor  # [n] what they should have been


class Network(nn.Module):
    """The serving modules of a config. A tier that is not trained need not be built: `tiers`.

    With a `rank` the decoder's matrices learn only so much beside what they are (low_rank.py); `seed` is of where that
    begins.
    """

    def __init__(
        self, config: InteractionConfig, tiers: Sequence[str] = (EAR, DECODER), rank: int = 0, seed: int = 1
    ) -> None:
        super().__init__()
        self.config = config
        self.rank = rank
        self.tower = Tower(config.tower, config.decoder.width)
        if DECODER in tiers:
            self.decoder = Decoder(config.decoder)
            if rank:
                lower(self.decoder, config, rank, seed)
        if EAR in tiers:
            if config.ear is None or config.ear_memory is None:
                raise ValueError(f"{config.name} has no ear")
            self.ear = Decoder(config.ear, config.ear_features)

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Take weights under their full names; parts that are not built are passed over. Raises RuntimeError."""
        mine = {name: tensor for name, tensor in tensors.items() if hasattr(self, name.partition(".")[0])}
        self.load_state_dict(lowered(mine, self.state_dict()) if self.rank else mine)

    def train_only(self, patterns: Sequence[str]) -> list[str]:
        """Let only the tensors learn whose whole name one of the regular expressions describes. Returns their names."""
        wanted = [re.compile(pattern) for pattern in patterns]
        names = []
        for name, parameter in self.named_parameters():
            parameter.requires_grad_(any(pattern.fullmatch(name) for pattern in wanted))
            if parameter.requires_grad:
                names.append(name)
        if not names:
            raise ValueError(f"no tensor is described by {', '.join(patterns)}")
        return names

    def learning(self) -> Iterator[tuple[str, nn.Parameter]]:
        return ((name, parameter) for name, parameter in self.named_parameters() if parameter.requires_grad)

    def forward(self, tier: str, batch: Batch, heard: Tensor, weighting: Weighting, drop: float = 0.0) -> Loss:
        """`heard` [B, chunks, 20, channels]: the tower's states, padded; so large a share of them is dropped."""
        rows, chunks = heard.shape[:2]
        joined = F.dropout(self.tower.joined(heard.flatten(0, 1).float()), drop, self.training)
        if tier == EAR:
            decoder, markers = self.ear, Markers.of_ear()
            features = self._for_ear(joined)
        else:
            decoder, markers = self.decoder, Markers.of_decoder(self.config.tokens)
            features = self._for_decoder(joined)
        out = states(decoder, batch, features.view(rows, chunks * features.shape[1], -1))
        return _loss(decoder, markers, batch, out, weighting)

    def _for_ear(self, joined: Tensor) -> Tensor:
        return self.tower.ear_features(joined) if self.config.tower.ear else self._for_decoder(joined)

    def _for_decoder(self, joined: Tensor) -> Tensor:
        tower = self.tower
        features: Tensor = tower.proj(F.gelu(tower.adapter(joined)) if self.config.tower.adapter else joined)
        return features


def _loss(decoder: Decoder, markers: Markers, batch: Batch, out: Tensor, weighting: Weighting) -> Loss:
    scored = batch.control != EITHER
    right = (batch.control[scored] == RESPOND).long()
    logits = decoder.control_logits(out[scored], markers.keep_silence, markers.text_begin)
    total = (out * 0).sum()  # where nothing is scored there is nothing to learn, and still a gradient to average
    control = words = None
    if len(right):
        weight = torch.where(right == 1, weighting.respond, 1.0)
        each = F.cross_entropy(logits, right, reduction="none")
        part = (each * weight).sum() / weight.sum()
        total = total + weighting.control * part
        control = float(part.detach())
    said = batch.words != LOSS_MASK
    if said.any():
        part = F.cross_entropy(decoder.words(out[said]), batch.words[said])
        total = total + part
        words = float(part.detach())
    scores = torch.sigmoid(logits[:, 1] - logits[:, 0]).detach()
    return Loss(total, words, control, scores, right)
