"""`offhook soundflow mean OUT MODEL MODEL...`: one model out of several that were tuned from the same one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from calls.settings import Settings
from model_worker.catalogue import Catalogue
from soundflow.base import Weights
from soundflow.commands.shared import MODEL, between, parser
from soundflow.errors import SoundflowError
from soundflow.train.run import save
from soundflow.train.start import differences, trained

_ABOUT = """The mean of the weights of models that began as the same one: runs with other seeds, rates or data, and what
they began with. It costs no more to serve than one of them (Wortsman and others, 2022: model soups). The thresholds are
the first one's; measure and choose anew."""


def main(arguments: Sequence[str], settings: Settings) -> int:
    options = parser(
        "mean",
        _ABOUT,
        "best small quieter/model",
        "best small small quieter/model --threshold 0.2",
        "patient quieter/model --answering 0.9  # the same model, less easily woken on calls that it answers",
    )
    options.add_argument("out", type=Path, help="directory for the model")
    options.add_argument("models", nargs="+", metavar="MODEL", help=f"{MODEL}; twice counts twice")
    options.add_argument("--threshold", type=between, help="to respond above (default: the first model's)")
    options.add_argument("--answering", type=between, help="the same on calls that are answered")
    given = options.parse_args(arguments)
    if len(given.models) < 2 and given.threshold is None and given.answering is None:
        options.error("a mean is of two models or more: OUT MODEL MODEL ...; or of one, with another threshold")
    if given.out.exists():
        raise SoundflowError(f"{given.out} is there already: name another directory, or remove it")
    find = Catalogue(settings.models).path
    made = mean([trained(model, find) for model in given.models], given.models)
    threshold = made.config.threshold if given.threshold is None else given.threshold
    save(made, given.out, threshold, made.config.answering if given.answering is None else given.answering, find=find)
    print(f"{given.out}: {_made_of(given.models)}; OFFHOOK_MODEL=interaction:{given.out}")
    return 0


def _made_of(models: Sequence[str]) -> str:
    return f"the mean of {len(models)} models" if len(models) > 1 else f"{models[0]} with other thresholds"


def mean(models: Sequence[Weights], names: Sequence[str]) -> Weights:
    """With the config and the tokenizer of the first. Raises SoundflowError for models of different shapes."""
    first = models[0]
    for name, model in zip(names, models, strict=True):
        if different := differences(model.config, first.config):
            raise SoundflowError(f"{name} is of another shape than {names[0]}: {'; '.join(different)}")
        if model.tokenizer.to_str() != first.tokenizer.to_str():
            raise SoundflowError(f"{name} has other words than {names[0]}: they were not tuned from the same model")
    tensors = {
        name: torch.stack([model.tensors[name] for model in models]).double().mean(dim=0).float()
        for name in first.tensors
    }
    return replace(first, tensors=tensors)
