from __future__ import annotations

import json
import sys
import zlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from calls.audio import CHUNK_SAMPLES
from calls.model import Mode
from calls.settings import Settings
from soundflow.build import Recipe, make_item
from soundflow.channel import Channel
from soundflow.commands import tasks
from soundflow.commands.tasks import sample
from soundflow.compose import Bed, Event, Plan, compose
from soundflow.items import EITHER, RESPOND, Item, Turn
from soundflow.policy import SOUNDS
from soundflow.speech import NotUnderstood, Said, Speech, wrong_share
from soundflow.tasks import ABILITIES, TASKS, find
from soundflow.tasks.proactive import CALM, CARD, DEAD_AIR_S, DISCLOSED, DISTRESS

QUIET = Bed(np.zeros(0, np.float32), -120.0)
Many = Callable[[str], list[Item]]


@pytest.fixture(scope="module")
def many(recipe: Recipe) -> Many:
    """Eight items of a sub-task, of all splits."""
    kept: dict[str, list[Item]] = {}

    def make(name: str) -> list[Item]:
        if name not in kept:
            config = replace(recipe.config, weights={**dict.fromkeys(TASKS, 0.0), name: 1.0})
            only = Recipe(config, recipe.material)
            splits = ("train", "train", "dev", "test")
            kept[name] = [make_item(only, splits[number % 4], number) for number in range(8)]
        return kept[name]

    return make


def test_seven_abilities_and_28_sub_tasks() -> None:
    assert len(TASKS) == 28
    assert [sum(task.ability == ability for task in TASKS.values()) for ability in ABILITIES] == [4] * 7
    assert all(task.rule for task in TASKS.values())
    with pytest.raises(Exception, match="no sub-task 'nonsense'"):
        find("nonsense")


@pytest.mark.parametrize("name", list(TASKS))
def test_a_sub_tasks_items(name: str, many: Many) -> None:
    """Responded to somewhere; never in the first Chunk; each labelled Chunk is where its Turn ends."""
    items = many(name)
    assert any(item.replies() for item in items)
    for item in items:
        assert item.task == name
        assert item.instruction
        assert len(item.audio) == item.chunks * CHUNK_SAMPLES
        assert np.abs(item.audio).max() > 300
        labels = item.labels()
        assert labels[0] != RESPOND
        assert np.flatnonzero(labels == RESPOND).tolist() == list(item.replies())


def test_the_same_number_gives_the_same_item(recipe: Recipe) -> None:
    for number in (0, 5):
        one, other = make_item(recipe, "train", number), make_item(recipe, "train", number)
        assert one.meta() == other.meta()
        assert np.array_equal(one.audio, other.audio)
    assert make_item(recipe, "train", 1).meta() != make_item(recipe, "dev", 1).meta()


def test_a_sample_has_a_response(recipe: Recipe) -> None:
    assert sample(recipe, "proactive/safety-sound").replies()


def test_samples_without_matplotlib(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("matplotlib", "matplotlib.figure"):
        monkeypatch.setitem(sys.modules, name, None)
    names = ["proactive/dead-air", "understanding/call-progress"]
    assert tasks.main([*names, "--home", str(tmp_path), "--samples", str(tmp_path / "samples")], Settings()) == 0
    assert "pip install 'offhook[soundflow]'" in capsys.readouterr().err
    made = sorted(path.name for path in (tmp_path / "samples").iterdir())
    assert made == [f"{name.replace('/', '-')}.{end}" for name in sorted(names) for end in ("json", "wav")]


def test_a_person_has_one_voice(recipe: Recipe, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever is not understood says something else; nobody else says it, or one would count as two."""
    say = Speech.say

    def sometimes(speech: Speech, text: str, voices: Sequence[str]) -> Said:
        if zlib.crc32(f"{text}{voices[0]}".encode()) % 7:
            return say(speech, text, voices)
        if len(voices) > 1:
            return say(speech, text, voices[1:])
        raise NotUnderstood(text)

    monkeypatch.setattr(Speech, "say", sometimes)
    config = replace(recipe.config, pool=40)
    words = {1: "One.", 2: "Two.", 3: "Three."}
    for name in ("understanding/how-many-speakers", "recognition/two-speakers"):
        only = Recipe(replace(config, weights={**dict.fromkeys(TASKS, 0.0), name: 1.0}), recipe.material)
        for split in ("train", "dev"):
            for number in range(12):
                item = make_item(only, split, number)
                spoken = [turn for turn in item.turns if turn.label == "speech"]
                voices = [turn.sources[0] for turn in spoken]
                if name == "understanding/how-many-speakers":
                    assert spoken[-1].reply == words[len(set(voices))]
                else:
                    order = list(dict.fromkeys(voices))
                    assert [turn.reply[:2] for turn in spoken] == [f"{order.index(voice) + 1}:" for voice in voices]


def test_questions_have_every_answer(recipe: Recipe) -> None:
    weights = {**dict.fromkeys(TASKS, 0.0), "understanding/question": 1.0}
    only = Recipe(replace(recipe.config, weights=weights, pool=40), recipe.material)
    said = set()
    for number in range(60):
        item = make_item(only, "train", number)
        *heard, asked = [turn for turn in item.turns if not turn.bed]
        said.add(asked.reply)
        if asked.heard.startswith("Did you hear "):
            what = asked.heard.removeprefix("Did you hear ").removesuffix("?")
            assert asked.reply == ("Yes." if what in [turn.heard for turn in heard] else "No.")
        elif asked.heard.startswith("How many"):
            assert asked.reply == ("One.", "Two.", "Three.")[len(heard) - 1]
    assert {"One.", "Two.", "Three.", "Yes.", "No."} <= said


def test_safety_sounds_follow_the_policy(many: Many) -> None:
    heard: list[Turn] = [turn for item in many("proactive/safety-sound") for turn in item.turns]
    assert {turn.respond for turn in heard} == {True, False}
    for turn in heard:
        known = SOUNDS.get(turn.label)
        assert turn.respond == bool(known and known.respond)
        assert not turn.respond or turn.early


def test_distress_is_answered_and_its_words_alone_are_not(many: Many) -> None:
    spoken = [t for item in many("proactive/distress") for t in item.turns if t.label == "speech"]
    for turn in spoken:
        assert turn.respond == (turn.heard in DISTRESS)
        assert not (turn.respond and turn.heard in CALM)


def test_dead_air_is_eight_seconds_of_nothing(many: Many) -> None:
    found = 0
    for item in many("proactive/dead-air"):
        speech = [t for t in item.turns if t.label == "speech"]
        for turn in (t for t in item.turns if t.respond):
            found += 1
            before = max(t.end_s for t in speech if t.end_s <= turn.begin_s + 0.01)
            assert abs(turn.end_s - before - DEAD_AIR_S) < 0.01
            assert not any(before < t.begin_s < turn.end_s for t in speech)
    assert found


def test_disclosure_is_missed_only_where_it_is_missing(many: Many) -> None:
    for item in many("proactive/disclosure"):
        told = any(turn.heard in DISCLOSED for turn in item.turns)
        asks = [turn for turn in item.turns if turn.heard in CARD]
        assert [turn.respond for turn in asks] == [not told]
        assert sum(turn.respond for turn in item.turns) == int(not told)


def test_counting_counts(many: Many) -> None:
    words = ("Zero.", "One.", "Two.", "Three.", "Four.")
    for item in many("instructions/count"):
        said = [text for _, text in item.replies().values()]
        if "Each time" in item.instruction:
            assert said == list(words[1 : len(said) + 1])
        else:
            wanted = item.instruction.removeprefix("Count how often you hear ").split(". ")[0]
            assert said == [words[sum(turn.heard == wanted for turn in item.turns)]]


def test_numbers_stay_the_same(many: Many) -> None:
    for item in many("translation/numbers"):
        for turn in (t for t in item.turns if t.respond):
            digits = ["".join(c for c in text if c.isdigit()) for text in (turn.heard, turn.reply)]
            assert digits[0]
            assert digits[0] == digits[1]


def test_tools_are_called_in_json(many: Many) -> None:
    for item in many("audio-agent/tool"):
        for _, text in item.replies().values():
            assert json.loads(text)["tool"] in item.instruction


def test_recognition_writes_what_is_said(many: Many) -> None:
    for name in ("recognition/clean", "recognition/telephone"):
        for item in many(name):
            assert item.mode is Mode.TRANSCRIBE
            assert item.channel == ("wideband" if name.endswith("clean") else "g711")
            for turn in item.turns:
                assert turn.reply == (turn.heard if turn.label == "speech" else "")


def event(seconds: float, reply: str = "", **more: float) -> Event:
    pcm = np.full(int(seconds * 16_000), 0.3, np.float32)
    return Event(pcm, "x", "speech", reply, **more)  # type: ignore[arg-type]


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.lists(st.tuples(st.floats(0.05, 3.0), st.booleans(), st.booleans()), min_size=1, max_size=6),
    st.integers(0, 2**31),
)
def test_any_plan_becomes_a_stream(drawn: list[tuple[float, bool, bool]], seed: int) -> None:
    """Background before each event and at the end; Chunks whole; the response where the event ends; else silence."""
    events = tuple(
        replace(event(seconds, "yes" if respond else ""), early=early, settle_s=0.2)
        for seconds, respond, early in drawn
    )
    rng = np.random.default_rng(seed)
    item = compose(Plan("t", Mode.ASSIST, "", events), QUIET, Channel(), "train", seed, rng)
    ends = 0.0
    for turn, made in zip(item.turns, events, strict=True):
        assert turn.begin_s - ends >= 0.8 - 1e-3
        assert turn.begin_s - ends <= 2.4 + 0.8 + 1e-3
        assert abs((turn.end_s - turn.begin_s) - made.seconds) < 1e-3
        ends = turn.end_s
        loud = item.audio[int((turn.begin_s + 0.01) * 16_000) : int((turn.end_s - 0.21) * 16_000)]
        assert not len(loud) or np.abs(loud).min() > 100
    assert 0.8 - 1e-3 <= item.seconds - ends < 2.4 + 0.4 + 1e-3
    labels = item.labels()
    assert int((labels == RESPOND).sum()) == sum(bool(made.reply) for made in events)
    assert not (labels == EITHER).any() or any(made.early and made.reply for made in events)


def test_a_long_sound_is_told_of_soon() -> None:
    long = replace(event(9.0, "Ringing."), within_s=4.0, gap_s=1.0, early=True)
    item = compose(Plan("t", Mode.ASSIST, "", (long,)), QUIET, Channel(), "train", 1, np.random.default_rng(1))
    assert list(item.replies()) == [12]  # 1 s + 4 s, in Chunks of 0.4 s
    assert item.seconds > 10.0


def test_words_heard_otherwise() -> None:
    assert wrong_share("My number is 42.", "my number is forty-two") == 0.0
    assert wrong_share("one two three four", "one two four") == 0.25
    assert wrong_share("hello", "") == 1.0
