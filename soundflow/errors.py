"""What soundflow raises on purpose."""

from __future__ import annotations

from calls.errors import OffhookError


class SoundflowError(OffhookError):
    """Data, a clip, a configuration or a shard is not as it must be. The text says which and what to do."""


class NotWritten(SoundflowError):
    """A file could not be written, most often because the disk is full. What had been finished by then is kept."""


class SpeechError(SoundflowError):
    """A voice is not there or could not speak."""
