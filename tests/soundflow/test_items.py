from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from calls.audio import CHUNK_S, CHUNK_SAMPLES
from calls.model import Mode
from soundflow.errors import SoundflowError
from soundflow.items import EITHER, RESPOND, SILENT, Item, Turn
from soundflow.streamaudio import from_streamaudio, to_streamaudio, write_wav
from tests.soundflow.making import made_item, same

CHUNKS = 50


def item(*turns: Turn, chunks: int = CHUNKS) -> Item:
    return Item("x", "t", Mode.ASSIST, "", np.zeros(chunks * CHUNK_SAMPLES, np.int16), turns, "train", 0)


def turn(begin: float, end: float, respond: bool = True, early: bool = False) -> Turn:
    return Turn("t", begin, end, respond, "words", "speech", "yes" if respond else "", early=early)


def test_response_belongs_to_the_chunk_the_turn_ends_in() -> None:
    assert turn(0.1, 0.8).last_chunk == 1  # exactly on the boundary: the Chunk before it
    assert turn(0.1, 0.81).last_chunk == 2
    assert turn(0.0, 0.01).last_chunk == 0


def test_labels_of_early_turns() -> None:
    made = item(turn(1.0, 2.8, early=True), turn(4.0, 4.8), turn(6.0, 8.0, respond=False, early=True))
    expected = np.full(CHUNKS, SILENT, np.int8)
    expected[2:6] = EITHER
    expected[[6, 11]] = RESPOND
    assert made.labels().tolist() == expected.tolist()
    assert made.replies() == {6: ("normal", "yes"), 11: ("normal", "yes")}


spans = st.lists(
    st.tuples(st.floats(0.0, 18.0), st.floats(0.01, 1.9), st.booleans(), st.booleans()), min_size=0, max_size=8
)


@settings(max_examples=200)
@given(spans)
def test_labels_and_replies_agree(drawn: list[tuple[float, float, bool, bool]]) -> None:
    """Whatever the turns: one RESPOND a reply, EITHER only inside an early turn, everything else SILENT."""
    turns, taken = [], set()
    for begin, length, respond, early in drawn:
        made = turn(begin, begin + length, respond, early)
        if not (respond and made.last_chunk in taken):
            turns.append(made)
            taken |= {made.last_chunk} if respond else set()
    stream = item(*turns)
    labels, replies = stream.labels(), stream.replies()
    assert len(labels) == stream.chunks
    assert np.flatnonzero(labels == RESPOND).tolist() == list(replies)
    for chunk in np.flatnonzero(labels == EITHER):
        assert any(t.respond and t.early and t.first_chunk <= chunk < t.last_chunk for t in turns)
    for one in turns:
        if one.respond:
            assert one.last_chunk * CHUNK_S - 1e-4 < one.end_s <= (one.last_chunk + 1) * CHUNK_S + 1e-4


@pytest.mark.parametrize(
    ("turns", "said"),
    [
        ((turn(1.0, 21.0),), "not inside the stream"),
        ((turn(2.0, 2.0),), "not inside the stream"),
        ((turn(1.0, 2.7), turn(2.0, 2.75)), "same Chunk"),
        ((Turn("t", 0.0, 1.0, True, "w", "speech"),), "must have a reply"),
        ((Turn("t", 0.0, 1.0, False, "w", "speech", "reply"),), "none if not"),
        ((Turn("t", 0.0, 1.0, True, "w", "speech", "reply", "bored"),), "emotion"),
    ],
)
def test_items_that_contradict_themselves(turns: tuple[Turn, ...], said: str) -> None:
    with pytest.raises(SoundflowError, match=said):
        item(*turns)


def test_audio_must_be_whole_chunks() -> None:
    with pytest.raises(SoundflowError, match="whole Chunks"):
        Item("x", "t", Mode.ASSIST, "", np.zeros(6401, np.int16), (), "train", 0)


def test_meta_and_back() -> None:
    made = made_item(3)
    assert same(Item.from_meta(made.meta(), made.audio), made)
    with pytest.raises(SoundflowError, match="item-3"):
        Item.from_meta({**made.meta(), "mode": "sing"}, made.audio)


def test_a_bed_is_told_and_shards_without_one_stay_as_they_are() -> None:
    bed = Turn("t", 0.0, CHUNKS * CHUNK_S, False, "rain", "rain", bed=True)
    made = item(bed, turn(1.0, 2.0))
    again = Item.from_meta(json.loads(json.dumps(made.meta())), made.audio)
    assert [one.bed for one in again.turns] == [True, False]
    assert again.turns == made.turns
    assert ["bed" in one for one in made.meta()["turns"]] == [True, False]
    with pytest.raises(SoundflowError, match="is a bed"):
        item(replace(bed, respond=True, reply="Rain."))


def test_streamaudio_and_back(tmp_path: Path) -> None:
    made = made_item(4)
    raw = to_streamaudio(made, tmp_path)
    assert set(raw) == {"id", "scene", "turns", "offhook"}
    assert [t["assistant"] for t in raw["turns"]] == ["", "A baby?", ""]
    assert all(set(t) == {"user", "assistant", "emotion", "scene", "audio"} for t in raw["turns"])
    assert same(from_streamaudio(raw, tmp_path), made)


def test_streamaudio_of_others(tmp_path: Path) -> None:
    """Without our part: a turn fills its file."""
    write_wav(tmp_path / "a.wav", np.ones(10_000, np.int16))
    write_wav(tmp_path / "b.wav", np.ones(6_400, np.int16))
    raw = {
        "id": "theirs",
        "scene": "a street",
        "turns": [
            {"user": "Hello?", "assistant": "Hello.", "emotion": "happy", "scene": "", "audio": "a.wav"},
            {"user": "rain", "assistant": "", "emotion": "", "scene": "", "audio": "b.wav"},
        ],
    }
    made = from_streamaudio(raw, tmp_path, "dev")
    assert made.labels().tolist() == [SILENT, RESPOND, SILENT]
    assert made.replies() == {1: ("happy", "Hello.")}
    with pytest.raises(SoundflowError, match="theirs"):
        from_streamaudio({"id": "theirs", "turns": [{"user": "?"}]}, tmp_path)
    with pytest.raises(SoundflowError, match=r"none\.wav"):
        from_streamaudio({"id": "x", "turns": [{"user": "?", "assistant": "", "audio": "none.wav"}]}, tmp_path)


def test_what_nobody_knows_is_not_scored() -> None:
    made = replace(made_item(3), unscored=((0, 4), (6, 20)))
    labels = made.labels()
    told = next(one for one in made.turns if one.respond)
    assert labels[told.last_chunk] == RESPOND  # a Turn says more
    assert set(labels[:4]) == {EITHER}
    again = Item.from_meta(json.loads(json.dumps(made.meta())), made.audio)
    assert again.meta() == made.meta()
    assert again.unscored == ((0, 4), (6, 20))
    assert "unscored" not in made_item(3).meta()  # shards that are there keep their bytes
    with pytest.raises(SoundflowError, match="not stretches"):
        replace(made_item(3), unscored=((4, 21),))
