"""What soundflow raises on purpose."""

from __future__ import annotations

from calls.errors import OffhookError


class SoundflowError(OffhookError):
    """Data, a clip, a configuration or a shard is not as it must be. The text says which and what to do."""
