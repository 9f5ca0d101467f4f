"""Which voice the settings name. The same for every model: they write, it speaks."""

from __future__ import annotations

from collections.abc import Callable

from calls.events import Speech
from calls.settings import Settings
from model_worker.catalogue import Catalogue
from model_worker.speaker import Speaker
from model_worker.voice import ClauseVoice, PiperVoice, RemoteVoice

MakeSpeaker = Callable[[Callable[[str, Speech], None]], Speaker | None]
"""Makes what speaks for a worker, given where speech goes: (call id, Speech). None: this worker has no voice."""


def load_voice(settings: Settings, catalogue: Catalogue) -> ClauseVoice:
    """Ready to speak. Raises CatalogueError when its weights are missing."""
    if settings.voice_url:
        model, _, name = settings.voice_name.rpartition("/")
        return RemoteVoice(settings.voice_url, model or "tts-1", name or "alloy", api_key=settings.voice_key)
    voice = PiperVoice(catalogue.path("piper-joe"))
    for _ in voice.say("Ready."):
        pass
    return voice
