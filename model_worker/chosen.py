"""The model that OFFHOOK_MODEL names: `cascade`, `interaction:DIR` or `echo`.

Everything heavy is imported where it is wanted: a worker of one model needs nothing of the others.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING

from calls.errors import SettingsError
from calls.settings import Settings

if TYPE_CHECKING:
    from model_worker.stream import Model
    from model_worker.voices import MakeSpeaker

INTERACTION = "interaction:"


def bound_threads() -> None:
    """Numerical libraries read these when they are first imported, and would otherwise take every core each.

    One thread: the matrices are small and there are many calls; two threads that wait for each other on busy cores
    made a step ten times slower. The language models have a setting of their own.
    """
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS"):
        os.environ.setdefault(name, "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


def load(settings: Settings, environment: Mapping[str, str]) -> tuple[Model, MakeSpeaker]:
    """The model, and what makes its voice. Slow: weights are read here.

    Raises SettingsError for a name that is no model or what it needs is not installed, CatalogueError or
    CheckpointError for weights that are missing or wrong.
    """
    if settings.model == "echo":
        from model_worker.echo import EchoModel

        return EchoModel(), lambda post: None
    if settings.model == "cascade":
        from model_worker.cascade.load import load_cascade

        return load_cascade(settings, environment)
    if settings.model.startswith(INTERACTION):
        from model_worker.catalogue import Catalogue
        from model_worker.speaker import Speaker
        from model_worker.voices import load_voice

        model = _interaction(settings, environment, settings.worker_calls, settings.worker_ears)
        voice = load_voice(settings, Catalogue(settings.models, overrides=environment))
        return model, lambda post: Speaker(voice, post)
    raise _unknown(settings.model)


def load_to_decide_again(settings: Settings, environment: Mapping[str, str], calls: int = 1) -> Model:
    """The model without a voice, for so many calls at once, in the form in which it depends least on how fast this
    machine is."""
    if settings.model == "echo":
        from model_worker.echo import EchoModel

        return EchoModel()
    if settings.model == "cascade":
        from model_worker.cascade.load import load_parts
        from model_worker.cascade.model import Cascade
        from model_worker.catalogue import Catalogue

        catalogue = Catalogue(settings.models, overrides=environment)
        return Cascade(load_parts(catalogue, settings.worker_threads), patient=True)
    if settings.model.startswith(INTERACTION):
        return _interaction(settings, environment, calls)
    raise _unknown(settings.model)


def _interaction(settings: Settings, environment: Mapping[str, str], calls: int, ears: int = 0) -> Model:
    try:
        from model_worker.interaction.load import load_interaction
    except ModuleNotFoundError as error:
        raise SettingsError(
            f'OFFHOOK_MODEL={settings.model} needs {error.name}: pip install "offhook[interaction]"'
        ) from error
    from model_worker.catalogue import Catalogue

    catalogue = Catalogue(settings.models, overrides=environment)
    directory = settings.model.removeprefix(INTERACTION)
    return load_interaction(directory, calls, settings.worker_threads, catalogue.path, ears)


def _unknown(name: str) -> SettingsError:
    return SettingsError(f"OFFHOOK_MODEL={name} is no model of this build: use cascade, interaction:DIR or echo")
