"""The token table is the published one, to the id."""

from __future__ import annotations

from dataclasses import asdict

import pytest

from model_worker.interaction.config import PRESETS, InteractionConfig
from model_worker.interaction.tokens import CHUNK_TOKENS, EMOTIONS, LOSS_MASK, PUBLISHED, Tokens


def test_published_ids() -> None:
    assert asdict(PUBLISHED) == {
        "user": 151601,
        "assistant": 151602,
        "keep_silence": 151605,
        "pad": 151608,
        "online": 151609,
        "offline": 151610,
        "english": 151611,
        "happy": 151614,
        "sad": 151615,
        "angry": 151616,
        "surprise": 151617,
        "normal": 151618,
        "urgent": 151619,
        "text_begin": 151644,
        "text_end": 151643,
        "audio_pad": 151646,
        "audio_begin": 151647,
        "audio_end": 151648,
    }
    assert PUBLISHED.system == 151644
    assert PUBLISHED.highest == 151648
    assert (LOSS_MASK, CHUNK_TOKENS) == (-100, 12)


def test_emotions_have_names_and_nothing_else_has() -> None:
    assert [PUBLISHED.emotion(getattr(PUBLISHED, name)) for name in EMOTIONS] == list(EMOTIONS)
    assert PUBLISHED.emotion(PUBLISHED.keep_silence) == ""
    assert PUBLISHED.emotion(0) == ""


def test_markers_after_a_vocabulary_are_distinct_and_above_it() -> None:
    ids = list(asdict(Tokens.after(512)).values())
    assert len(set(ids)) == len(ids)
    assert min(ids) == 512


@pytest.mark.parametrize("config", PRESETS.values(), ids=str)
def test_markers_fit_the_vocabulary_and_the_manifest_keeps_everything(config: InteractionConfig) -> None:
    assert config.tokens.highest < config.decoder.vocabulary
    assert InteractionConfig.from_dict(config.as_dict()) == config
