"""Building the cascade from settings: which weights, which language model, which voice. Reads the weights, so it takes
seconds; everything is run once, so that the first call pays for nothing."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from calls.errors import SettingsError
from calls.events import Speech
from calls.settings import Settings
from model_worker.cascade.finals import FinalRecogniser
from model_worker.cascade.knowledge import Libraries
from model_worker.cascade.language import LocalLanguageModel, RemoteLanguageModel
from model_worker.cascade.model import Cascade, Parts
from model_worker.cascade.partials import PartialRecogniser
from model_worker.cascade.responder import Writer
from model_worker.cascade.retrieval import Embedder
from model_worker.cascade.transcriber import Refiner, Transcriber
from model_worker.cascade.turn_end import TurnEnd
from model_worker.cascade.vad import VoiceActivity
from model_worker.catalogue import Catalogue
from model_worker.speaker import Speaker
from model_worker.voices import MakeSpeaker, load_voice

log = logging.getLogger(__name__)


def load_cascade(settings: Settings, environment: Mapping[str, str]) -> tuple[Cascade, MakeSpeaker]:
    """The model, and what makes the thread that speaks for it. Raises CatalogueError when weights are missing."""
    began = time.perf_counter()
    catalogue = Catalogue(settings.models, overrides=environment)
    with ThreadPoolExecutor(settings.worker_threads) as pool:
        voice = pool.submit(load_voice, settings, catalogue)
        parts = pool.submit(load_parts, catalogue, settings.worker_threads)
        writer = pool.submit(_writer, settings, catalogue)
        cascade = Cascade(parts.result())
        cascade.parts.writer = writer.result()
        cascade.parts.writes_short = bool(settings.language_model_url)
        spoken = voice.result()
    log.info("the cascade is loaded after %.1f s", time.perf_counter() - began)

    def make_speaker(post: Callable[[str, Speech], None]) -> Speaker:
        speaker = Speaker(spoken, post)
        cascade.parts.get_ready = speaker.prepare
        return speaker

    return cascade, make_speaker


def load_parts(catalogue: Catalogue, threads: int = 2) -> Parts:
    """Everything that hears and decides, without a voice and a language model."""
    recogniser = PartialRecogniser(catalogue.path("moonshine-tiny"))
    finals = FinalRecogniser(catalogue.path("whisper-base"), nice=15)  # the live path goes first
    turn_end = TurnEnd(catalogue.path("smart-turn"))
    embedder = Embedder(catalogue.path("minilm"))
    hum = (np.sin(np.arange(16_000) / 20) * 0.1).astype(np.float32)
    recogniser.transcribe([hum])
    turn_end.probability(hum)
    embedder.embed(["warm"])
    return Parts(
        voice_activity=VoiceActivity(catalogue.path("silero-vad")),
        transcriber=Transcriber(recogniser, threads),
        refiner=Refiner(finals.transcribe),
        prosody=turn_end.probability,
        libraries=Libraries(embedder),
    )


def _writer(settings: Settings, catalogue: Catalogue) -> Writer:
    if not settings.language_model_url:
        gguf = catalogue.path("qwen-0.5b") / "model.gguf"
        return Writer(LocalLanguageModel(gguf, threads=settings.worker_threads), at_once=2)
    if not settings.language_model_name:
        raise SettingsError("OFFHOOK_LANGUAGE_MODEL_URL is set: set OFFHOOK_LANGUAGE_MODEL_NAME as well")
    return Writer(
        RemoteLanguageModel(
            settings.language_model_url, settings.language_model_name, api_key=settings.language_model_key
        )
    )
