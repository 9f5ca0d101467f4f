"""What is said when a model does not fit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from calls.errors import SettingsError
from model_worker.interaction import load as load_module
from model_worker.interaction.checkpoint import Checkpoint
from model_worker.interaction.config import TEST
from model_worker.interaction.load import load_interaction
from model_worker.interaction.make import make_tokenizer


def full(*args: Any, **options: Any) -> None:
    raise torch.OutOfMemoryError("CUDA out of memory")


def test_weights_that_do_not_fit_say_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(load_module, "load", full)
    with pytest.raises(SettingsError, match="choose a smaller model") as raised:
        load_interaction(str(tmp_path), calls=4, threads=torch.get_num_threads())
    assert "OFFHOOK_WORKER_CALLS" not in str(raised.value), "fewer calls would not help"


def test_calls_that_do_not_fit_say_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small = Checkpoint("native", TEST, {}, {"embed_tokens.weight": torch.zeros(1)}, {}, make_tokenizer())
    monkeypatch.setattr(load_module, "load", lambda *args: small)
    monkeypatch.setattr(load_module, "build", full)
    with pytest.raises(SettingsError, match="for 8 ears: set OFFHOOK_WORKER_CALLS or OFFHOOK_WORKER_EARS lower, or"):
        load_interaction(str(tmp_path), calls=4, threads=torch.get_num_threads())
