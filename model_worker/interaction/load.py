"""A checkpoint of the Audio Interaction Model, ready to serve calls on the best device of this machine."""

from __future__ import annotations

import logging
import time
from dataclasses import replace

import torch

from calls.errors import SettingsError
from model_worker.interaction.build import build, paced
from model_worker.interaction.checkpoint import load
from model_worker.interaction.formats.base import Find
from model_worker.interaction.model import EARS_A_CALL, Interaction
from model_worker.interaction.shipped import located

log = logging.getLogger(__name__)


def load_interaction(directory: str, calls: int, threads: int, find: Find | None = None, ears: int = 0) -> Interaction:
    """Room for `calls`, `threads` on a CPU. bfloat16 on a GPU, float32 on a CPU.

    `ears`: slots, where not every call is to find two, because one that the model answers has one ear; at least two,
    which the next call may need. 0: two for each of `calls`, whatever they are.

    `directory` may be the name of a model that comes with this package. `find` tells where the catalogue has what a
    small checkpoint builds on. Raises SettingsError when there is no such directory or not so much memory,
    CatalogueError for a base that is not on this machine, CheckpointError when what is in the directory is no whole
    checkpoint.
    """
    path = located(directory)
    began = time.perf_counter()
    on_gpu = torch.cuda.is_available()
    if not on_gpu:
        torch.set_num_threads(threads)
    device, dtype = ("cuda", torch.bfloat16) if on_gpu else ("cpu", torch.float32)
    try:
        checkpoint = load(path, device, dtype, find)
    except torch.OutOfMemoryError as error:
        raise SettingsError(
            f"OFFHOOK_MODEL=interaction:{directory}: the GPU has not enough free memory for the model alone: end what "
            "else uses the GPU, or choose a smaller model"
        ) from error
    checkpoint = replace(checkpoint, config=paced(checkpoint, on_gpu))
    slots = max(EARS_A_CALL, ears or EARS_A_CALL * calls)
    try:
        serving = build(checkpoint, slots)
    except torch.OutOfMemoryError as error:
        raise SettingsError(
            f"no memory on the GPU for {slots} ears: set OFFHOOK_WORKER_CALLS or OFFHOOK_WORKER_EARS lower, or choose "
            "a smaller model"
        ) from error
    name = f"interaction:{path.resolve().name}"
    log.info("%s (%s, %s) is loaded after %.1f s", name, checkpoint.config.name, device, time.perf_counter() - began)
    return Interaction(serving, checkpoint.tokenizer, name)
