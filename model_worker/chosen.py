"""The model that OFFHOOK_MODEL names: `cascade`, `interaction:DIR`, `cascade+interaction:DIR` or `echo`.

`A+B` is two models joined, words by A and sounds by B (joined.py).

Everything heavy is imported where it is wanted: a worker of one model needs nothing of the others.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
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
    first, second = _names(settings.model)
    # The second comes first: of what it lacks one is told before the first, and slower, is read.
    sounds = _sounds(settings, second, environment, settings.worker_ears or settings.worker_calls) if second else None
    model, make_speaker = _load(settings, first, environment)
    return _join(model, sounds), make_speaker


def load_to_decide_again(settings: Settings, environment: Mapping[str, str], calls: int = 1) -> Model:
    """The model without a voice, for so many calls at once, in the form in which it depends least on how fast this
    machine is."""
    first, second = _names(settings.model)
    sounds = _sounds(settings, second, environment, calls) if second else None
    if first == "echo":
        from model_worker.echo import EchoModel

        return _join(EchoModel(), sounds, patient=True)
    if first == "cascade":
        from model_worker.cascade.load import load_parts
        from model_worker.cascade.model import Cascade
        from model_worker.catalogue import Catalogue

        catalogue = Catalogue(settings.models, overrides=environment)
        cascade = Cascade(load_parts(catalogue, settings.worker_threads), patient=True)
        return _join(cascade, sounds, patient=True)
    return _interaction(settings, first, environment, settings.worker_threads, calls)


def needed(settings: Settings, default: Sequence[str]) -> list[str]:
    """Names in the catalogue of what the model, its voice and the wrap-up want; `default`: those of the cascade.

    Raises SettingsError for a name that is no model, or a directory that is not there.
    """
    from model_worker.interaction.shipped import builds_on

    first, second = _names(settings.model)
    if first == "cascade":
        names = list(default)
    elif settings.model == "echo":
        return []
    else:
        voice = [] if first == "echo" or settings.voice_url else ["piper-joe"]
        names = ["silero-vad", "whisper-base", *voice]
    for one in (first, second):
        if one.startswith(INTERACTION):
            names += builds_on(one.removeprefix(INTERACTION))
    return list(dict.fromkeys(names))


def _names(model: str) -> tuple[str, str]:
    """What OFFHOOK_MODEL says, as the names of one model, or of two that are joined: words, sounds."""
    first, joined, directory = model.partition(f"+{INTERACTION}")
    if first in ("cascade", "echo"):
        return first, INTERACTION + directory if joined else ""
    if model.startswith(INTERACTION):
        return model, ""  # a directory may be called anything
    known = "cascade, interaction:DIR, cascade+interaction:DIR or echo"
    raise SettingsError(f"OFFHOOK_MODEL={model} is no model of this build: use {known}")


def _load(settings: Settings, name: str, environment: Mapping[str, str]) -> tuple[Model, MakeSpeaker]:
    if name == "echo":
        from model_worker.echo import EchoModel

        return EchoModel(), lambda post: None
    if name == "cascade":
        from model_worker.cascade.load import load_cascade

        return load_cascade(settings, environment)
    from model_worker.catalogue import Catalogue
    from model_worker.speaker import Speaker
    from model_worker.voices import load_voice

    calls, ears = settings.worker_calls, settings.worker_ears
    model = _interaction(settings, name, environment, settings.worker_threads, calls, ears)
    voice = load_voice(settings, Catalogue(settings.models, overrides=environment))
    return model, lambda post: Speaker(voice, post)


def _sounds(settings: Settings, name: str, environment: Mapping[str, str], ears: int) -> Model:
    """It hears the callers alone, one a call, on a thread of its own and no further ones."""
    return _interaction(settings, name, environment, threads=1, calls=ears, ears=ears)


def _join(words: Model, sounds: Model | None, patient: bool = False) -> Model:
    if sounds is None:
        return words
    from model_worker.joined import Joined

    return Joined(words, sounds, patient)


def _interaction(
    settings: Settings, name: str, environment: Mapping[str, str], threads: int, calls: int, ears: int = 0
) -> Model:
    try:
        from model_worker.interaction.load import load_interaction
    except ModuleNotFoundError as error:
        raise SettingsError(
            f'OFFHOOK_MODEL={settings.model} needs {error.name}: pip install "offhook[interaction]"'
        ) from error
    from model_worker.catalogue import Catalogue

    catalogue = Catalogue(settings.models, overrides=environment)
    return load_interaction(name.removeprefix(INTERACTION), calls, threads, catalogue.path, ears)
