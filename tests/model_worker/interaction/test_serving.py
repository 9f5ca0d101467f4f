"""Ears come and go, are given what is no Chunk, and leave no trace."""

from __future__ import annotations

import pytest

pytest.importorskip("torch", reason="the interaction extra (torch, transformers) is not installed: scripts/setup test")

import gc
from dataclasses import replace
from threading import Thread
from time import sleep
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from model_worker.errors import NoRoom
from model_worker.interaction.config import InteractionConfig
from model_worker.interaction.memory import Memory
from model_worker.interaction.serving import BEHIND, Ear, Said, Serving
from model_worker.interaction.tier import NOTHING, PREFIXES, TOGETHER, Tier
from tests.model_worker.interaction.audio import in_chunks, sound
from tests.model_worker.interaction.served import DEVICES, PREFIX, SMALL, TWO_TIERS, Heard, listen, serve, take

BOTH = pytest.mark.parametrize("config", [SMALL, TWO_TIERS], ids=["one tier", "two tiers"])
ALWAYS = replace(SMALL, threshold=0.0)
NEVER = replace(SMALL, threshold=1.0)


def state(serving: Serving) -> list[Tensor]:
    """All that is kept of calls on the device, without the slot for padding."""
    tiers = [tier for tier in (serving._decoder, serving._ear) if tier]
    kept = [tensor for tier in tiers for tensor in (tier.memory.keys, tier.memory.values)]
    perception = serving._perception
    rows = [perception.state.tail, perception.state.loudest, perception._context]
    if serving._unheard:
        rows.append(torch.cat([serving._unheard._ring, serving._unheard._ring[:1]]))  # which has no slot for padding
    times = [tier.memory.times[:-1] for tier in tiers]
    return [tensor[:, :-1].clone() for tensor in kept] + [tensor[:-1].clone() for tensor in (*rows, *times)]


def same(a: list[Tensor], b: list[Tensor]) -> bool:
    return all(torch.equal(one, other) for one, other in zip(a, b, strict=True))


@BOTH
@pytest.mark.parametrize("device", DEVICES)
def test_a_slot_has_no_trace_of_the_call_before(config: InteractionConfig, device: str) -> None:
    """Not a byte, and the next call there says what it would have said anywhere."""
    canary, pcm = in_chunks(sound(7, 9)), in_chunks(sound(8, 9))
    serving = serve(config, slots=1, device=device)
    fresh = state(serving)
    [expected] = listen(serving, [(serving.open(PREFIX), 0, pcm)])
    serving.release(next(iter(serving._ears.values())))
    assert same(fresh, state(serving))
    other = serving.open([*PREFIX[:3], 99, 98, 97, PREFIX[-1]])
    listen(serving, [(other, 0, canary)])
    assert not same(fresh, state(serving))
    serving.release(other)
    serving.release(other)
    assert same(fresh, state(serving))
    assert serving.free == 1
    [again] = listen(serving, [(serving.open(PREFIX), 0, pcm)])
    assert (again.scores, again.choices()) == (expected.scores, expected.choices())


@BOTH
def test_a_chunk_twice_or_too_late_changes_nothing(config: InteractionConfig) -> None:
    pcm = in_chunks(sound(3, 8))
    serving = serve(config)
    ear, other = serving.open(PREFIX), serving.open(PREFIX)
    listen(serving, [(ear, 0, pcm[:6]), (other, 0, pcm[:5])])
    before = state(serving)
    for late in (5, 4, 0):
        assert serving.hear([(ear, late, pcm[7])]) == ([None], [])
    assert serving.hear([(ear, 6, pcm[6][:100])]) == ([None], [])
    assert same(before, state(serving))
    with pytest.raises(ValueError, match="one Chunk at a time"):
        serving.hear([(ear, 6, pcm[6]), (ear, 7, pcm[7])])
    assert same(before, state(serving))
    # Refusals in a batch do not touch the others.
    [refused, heard], _ = serving.hear([(ear, 2, pcm[2]), (other, 5, pcm[5])])
    assert refused is None
    assert heard
    assert heard.index == 5


def test_lost_audio_takes_no_place_and_no_time() -> None:
    pcm = in_chunks(sound(3, 10))
    serving = serve(NEVER)
    ear, other = serving.open(PREFIX), serving.open(PREFIX)
    for index in (10, 11, 15, 16):
        serving.hear([(ear, index, pcm[index - 10])])
    for index, heard in enumerate((0, 1, 5, 6)):
        if index == 2:
            serving._perception.reset(other.slot)
        serving.hear([(other, index, pcm[heard])])
    assert ear.lost == 3
    assert ear.judge.chunks == 4
    assert same(
        [tensor[ear.slot] for tensor in state(serving)[2:]], [tensor[other.slot] for tensor in state(serving)[2:]]
    )
    assert torch.allclose(
        serving._decoder.memory.keys[:, ear.slot], serving._decoder.memory.keys[:, other.slot], atol=1e-5
    )


@BOTH
def test_a_call_that_is_answered_is_woken_less_lightly(config: InteractionConfig) -> None:
    pcm = in_chunks(sound(3, 6))
    serving = serve(replace(config, threshold=0.0, answering=1.0))
    said = listen(serving, [(serving.open(PREFIX, mode), 0, pcm) for mode in ("answer", "assist", "transcribe")])
    assert [len(one.responded) for one in said] == [0, 6, 6]
    everywhere = serve(replace(config, threshold=0.0))
    [answered] = listen(everywhere, [(everywhere.open(PREFIX, "answer"), 0, pcm)])
    assert len(answered.responded) == 6


@pytest.mark.parametrize("bad", [torch.full((6400,), torch.nan), torch.full((6400,), 1e9), torch.zeros(6400)])
def test_broken_sound_harms_nobody(bad: Tensor) -> None:
    pcm = in_chunks(sound(4, 12))
    serving = serve(SMALL)
    broken, well = serving.open(PREFIX), serving.open(PREFIX)
    heard = listen(serving, [(broken, 0, [bad if n == 3 else chunk for n, chunk in enumerate(pcm)]), (well, 0, pcm)])
    [alone] = listen(serving, [(serving.open(PREFIX), 0, pcm)])
    assert all(0.0 <= score <= 1.0 for score in heard[0].scores)
    assert heard[1].choices() == alone.choices()
    assert torch.isfinite(serving._decoder.memory.values).all()


def test_opening_when_full_or_out_of_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    pcm = in_chunks(sound(5, 6))
    serving = serve(SMALL, slots=2)
    ear = serving.open(PREFIX)
    listen(serving, [(ear, 0, pcm[:3])])
    before = state(serving)

    def no_memory(self: Tier, slot: int, *_: object) -> None:
        self.memory.times[slot, 0] = 0
        raise torch.OutOfMemoryError("CUDA out of memory")

    with monkeypatch.context() as patch:
        patch.setattr(Tier, "opening", no_memory)
        with pytest.raises(NoRoom, match="fewer slots"):
            serving.open(PREFIX)
    with monkeypatch.context() as patch:
        patch.setattr(Memory, "paste_prefix", full)  # the Instruction is kept: it is only to be copied
        with pytest.raises(NoRoom, match="fewer slots"):
            serving.open(PREFIX)
    for refused in ([], [1] * (SMALL.memory.prefix + 1)):
        with pytest.raises(ValueError, match="1 to 10 tokens"):
            serving.open(refused)
    assert same(before, state(serving))
    serving.open(PREFIX)
    with pytest.raises(NoRoom, match="all 2 slots"):
        serving.open(PREFIX)
    judged, _ = serving.hear([(ear, 3, pcm[3])])
    assert judged[0] is not None


def full(*_: object) -> None:
    raise torch.OutOfMemoryError("CUDA out of memory")


def test_an_ear_that_finds_no_memory_is_refused_and_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """The decoder of two tiers has its slot filled by then."""
    pcm = in_chunks(sound(5, 6))
    serving = serve(TWO_TIERS, slots=2)
    ear = serving.open(PREFIX)
    listen(serving, [(ear, 0, pcm[:3])])
    before = state(serving)
    with monkeypatch.context() as patch:
        patch.setattr(serving._ear, "open", full)
        with pytest.raises(NoRoom, match="fewer slots"):
            serving.open(PREFIX)
    assert same(before, state(serving))
    assert serving.free == 1
    judged, _ = serving.hear([(ear, 3, pcm[3])])
    assert judged[0] is not None
    serving.open(PREFIX)


@BOTH
def test_released_and_cancelled_in_mid_answer(config: InteractionConfig) -> None:
    config = replace(config, threshold=0.0)
    pcm = in_chunks(sound(5, 6))
    serving = serve(config)
    ear, other = serving.open(PREFIX), serving.open(PREFIX)
    serving.hear([(ear, 0, pcm[0]), (other, 0, pcm[0])])
    serving.write()
    assert serving.busy
    serving.stop(other)
    serving.release(ear)
    while serving.busy:  # what is due before the next Chunk
        assert {words.ear for words in serving.write()} <= {other}
    assert serving.hear([(ear, 1, pcm[1])]) == ([None], [])
    serving.config = replace(config, threshold=1.0)
    [judged], said = serving.hear([(other, 1, pcm[1])])
    assert judged
    assert not judged.respond
    assert said == [Said(other, 0, (), ended=True, cut=True)]
    assert serving.write() == []  # it is not speaking any more
    assert serving.hear([(other, 2, pcm[2])])[1] == []


@pytest.mark.parametrize("again", [False, True])
@pytest.mark.parametrize("failing", ["_catch_up", "_decide"])
def test_a_chunk_whose_pass_fails(failing: str, again: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is lost, and the next one is heard as after any lost audio; or it comes once more, and is not heard twice:
    where the tower had heard it, the tower begins anew, and else nothing is changed."""
    pcm = in_chunks(sound(3, 8))
    serving = serve(NEVER)
    ear, other = serving.open(PREFIX), serving.open(PREFIX)
    scores: list[list[float]] = [[], []]
    for index, chunk in enumerate(pcm):
        if index == 4:
            with monkeypatch.context() as patch:
                patch.setattr(serving, failing, fails)
                with pytest.raises(RuntimeError, match="gone"):
                    serving.hear([(ear, index, chunk)])
            if not again:
                continue
            if failing == "_decide":
                serving._perception.reset(other.slot)
        for one, row in ((ear, scores[0]), (other, scores[1])):
            [judged], _ = serving.hear([(one, index, chunk)])
            assert judged
            row.append(judged.score)
    assert scores[0] == pytest.approx(scores[1], abs=1e-6)
    assert (ear.lost, ear.due) == (0 if again else 1, len(pcm))
    assert ear.lost == other.lost


def fails(*_: object) -> None:
    raise RuntimeError("the device is gone")


def test_an_ear_goes_on_hearing_while_its_decoder_wakes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hearing makes no pass of the decoder until that is too far behind; then no more than keeps it within bounds."""
    pcm = in_chunks(sound(5, 30))
    config = replace(TWO_TIERS, memory=replace(TWO_TIERS.memory, chunks=2 * TOGETHER + 1))
    serving = serve(replace(config, threshold=1.0))
    ear = serving.open(PREFIX)
    passes: list[str] = []
    wake, write = serving._wake, serving._write
    monkeypatch.setattr(serving, "_wake", lambda ears: (passes.append("wake"), wake(ears))[1])
    monkeypatch.setattr(serving, "_write", lambda ears: (passes.append("write"), write(ears))[1])
    for index in range(10):
        serving.hear([(ear, index, pcm[index])])
    serving.config = replace(config, threshold=0.0)
    serving.hear([(ear, 10, pcm[10])])
    assert ear.waking == config.memory.chunks
    for index in range(BEHIND):
        serving.hear([(ear, 11 + index, pcm[11 + index])])
    assert passes == []
    serving.hear([(ear, 11 + BEHIND, pcm[11 + BEHIND])])
    assert passes == ["wake"] * 3 + ["write"] * TWO_TIERS.words_a_chunk  # TOGETHER, TOGETHER, and the last one
    assert len(ear.pending) == BEHIND


def test_who_writes_does_not_wait_for_those_that_wake(monkeypatch: pytest.MonkeyPatch) -> None:
    pcm = in_chunks(sound(5, 8))
    serving = serve(replace(TWO_TIERS, threshold=0.0))
    ear, writer = serving.open(PREFIX), serving.open(PREFIX)
    serving.hear([(writer, 0, pcm[0])])
    while writer.behind:
        serving.write_due(writer)
    serving.config = replace(TWO_TIERS, threshold=1.0)
    for index in range(2):
        serving.hear([(ear, index, pcm[index])])
    serving.hear([(writer, 1, pcm[1])])
    serving.config = replace(TWO_TIERS, threshold=0.0)
    serving.hear([(ear, 2, pcm[2])])
    assert (ear.waking, writer.waking) == (3, 0)  # fewer than TOGETHER: a pass for each
    passes: list[str] = []
    wake, write = serving._wake, serving._write
    monkeypatch.setattr(serving, "_wake", lambda ears: (passes.append("wake"), wake(ears))[1])
    monkeypatch.setattr(serving, "_write", lambda ears: (passes.append("write"), write(ears))[1])
    while ear.waking:
        serving.write()
    assert passes == ["wake", "write", "wake", "write", "wake"]


@BOTH
def test_one_ear_is_caught_up_alone(config: InteractionConfig) -> None:
    """Whoever was opened before it waits for its own turn; a released ear has nothing more to write."""
    pcm = in_chunks(sound(5, 6))
    serving = serve(replace(config, threshold=0.0))
    first, second = serving.open(PREFIX), serving.open(PREFIX)
    serving.hear([(first, 0, pcm[0]), (second, 0, pcm[0])])
    texts = first.voice.texts
    said = []
    while second.behind:
        said += serving.write_due(second)
    assert {words.ear for words in said} == {second}
    assert first.behind
    assert first.voice.texts == texts
    assert not second.behind
    assert serving.write_due(second) == []
    serving.release(first)
    assert serving.write_due(first) == []
    assert not first.behind


@pytest.mark.parametrize("passes", [1, 3])
def test_an_answer_that_never_ends_is_ended(passes: int) -> None:
    """It is as long as `longest`, and TEXT_END stands behind it in the memory."""
    serving = serve(replace(SMALL, threshold=1.0))
    serving._passes = passes
    never = [serving.config.tokens.text_end]
    serving._decoder._forbidden[:, never] = float("-inf")
    ear = serving.open(PREFIX)
    serving.config = replace(serving.config, threshold=0.0)
    chunks = in_chunks(sound(5, 8))
    life = Heard()
    for index, chunk in enumerate(chunks):
        [judged], said = serving.hear([(ear, index, chunk)])
        assert judged
        life.judge(judged)
        take({ear: life}, said)
        serving.config = NEVER
        while serving.busy:
            take({ear: life}, serving.write())
    assert life.responded == life.ended == [0]
    assert len(life.words[0]) == SMALL.longest
    assert ear.text is None
    assert ear.voice.texts == SMALL.longest + 2


def test_a_minute_later_a_chunk_costs_the_same() -> None:
    """Work is counted, not timed: for a Chunk and for a word, at any age of a call."""
    serving = serve(ALWAYS)
    ear = serving.open(PREFIX)
    pcm = in_chunks(sound(1, 20))
    work = []
    for index in range(60):
        with FlopCounterMode(display=False) as counter:
            serving.hear([(ear, index, pcm[index % 20])])
            serving.write()
        while serving.busy:
            serving.write()
        work.append(counter.get_total_flops())
    assert len(set(work)) == 1
    assert work[0] > 0


def test_an_instruction_is_computed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """And many of them do not pile up; a copy is as good as the first."""
    serving = serve(SMALL, slots=3)
    read: list[int] = []
    original = Tier._read

    def counted(self: Tier, slot: int, *rest: object) -> None:
        read.append(slot)
        original(self, slot, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(Tier, "_read", counted)
    first, second = serving.open(PREFIX), serving.open(PREFIX)
    assert len(read) == 1
    memory = serving._decoder.memory
    assert torch.equal(memory.keys[:, first.slot], memory.keys[:, second.slot])
    assert torch.equal(memory.times[first.slot], memory.times[second.slot])
    for word in range(PREFIXES + 5):
        serving.release(serving.open([*PREFIX, word]))
    assert len(serving._decoder._prefixes) == PREFIXES


LONG = [PREFIX[0], *(number % 7 + 3 for number in range(20)), PREFIX[-1]]
ROOMY = replace(SMALL, memory=replace(SMALL.memory, prefix=len(LONG)))


def test_an_instruction_in_slices_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """For the slot, for the copies of it, when it is computed ahead without a slot, and after it was interrupted."""
    said = [[1, 2, 3, 4, 5], [6, 7]]
    whole = serve(ROOMY)
    first = whole.open(LONG, said=said)
    monkeypatch.setattr("model_worker.interaction.tier.SLICE", 5)
    sliced, ahead = serve(ROOMY), serve(ROOMY, slots=1)
    ears = [sliced.open(LONG, said=said) for _ in range(2)]
    given_up = ahead.prepare(LONG[:-1])
    next(given_up)
    given_up.close()
    padding = ahead._decoder.memory.scratch, 5, 0, 0, 0, 1
    for _ in ahead.prepare(LONG):
        ahead._decoder.write([padding], 1)
    assert ahead.free == 1
    assert list(ahead._decoder._prefixes) == [tuple(LONG)]
    memory = whole._decoder.memory
    for serving, ear in [(sliced, ears[0]), (sliced, ears[1]), (ahead, ahead.open(LONG, said=said))]:
        other = serving._decoder.memory
        assert torch.equal(memory.times[first.slot], other.times[ear.slot])
        assert torch.allclose(memory.keys[:, first.slot], other.keys[:, ear.slot], atol=1e-5)
        assert torch.allclose(memory.values[:, first.slot], other.values[:, ear.slot], atol=1e-5)


def test_calls_are_heard_while_others_are_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever waits comes in after the slice that is read; and two are opened with one Instruction at once."""
    monkeypatch.setattr("model_worker.interaction.tier.SLICE", 5)
    pcm = in_chunks(sound(5, 6))
    serving = serve(ROOMY)
    ear = serving.open(PREFIX)
    order: list[str] = []
    opened: list[Ear] = []
    original, accept = Tier._read, serving._accept

    def accepted(*item: Any) -> bool:
        order.append("heard")
        return accept(*item)

    def hear() -> None:
        serving.hear([(ear, 0, pcm[0])])

    def open_one() -> None:
        opened.append(serving.open(LONG))

    others = [Thread(target=hear), Thread(target=open_one)]

    def slow(self: Tier, slot: int, *rest: object) -> None:
        if not order:
            for asked, other in enumerate(others, start=2):
                other.start()
                while serving._lock.asked < asked:
                    sleep(0.001)
        order.append(f"slot {slot}")
        original(self, slot, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(Tier, "_read", slow)
    monkeypatch.setattr(serving, "_accept", accepted)
    first = serving.open(LONG)
    for other in others:
        other.join()
    assert order[:2] == [f"slot {first.slot}", "heard"]
    assert len(order) == 1 + 2 * 5  # both have read the Instruction
    [second] = opened
    assert first.slot != second.slot
    memory = serving._decoder.memory
    assert torch.equal(memory.keys[:, first.slot], memory.keys[:, second.slot])
    assert torch.equal(memory.times[first.slot], memory.times[second.slot])
    assert serving.free == 1


@BOTH
def test_a_call_taken_over_remembers_what_was_said(config: InteractionConfig) -> None:
    """As if the words had been written here; the oldest that do not fit are left out."""
    serving = serve(config)
    tokens = config.tokens
    ear = serving.open(PREFIX, said=[[1, 2, 3, 4, 5], [6, 7], [tokens.sad, 8, 9]])
    other: Ear = serving.open(PREFIX)
    memory = serving._decoder.memory
    written = [[tokens.text_begin, 6, 7, tokens.text_end], [tokens.text_begin, tokens.sad, 8, 9, tokens.text_end]]
    for chunk, words in enumerate(written):
        for said, word in enumerate(words):
            serving._decoder.write([(other.slot, word, sum(map(len, written[:chunk])) + said, chunk, said, 1)], 1)
    assert ear.voice.texts == 9
    assert torch.equal(memory.times[ear.slot], memory.times[other.slot])
    assert torch.allclose(memory.keys[:, ear.slot], memory.keys[:, other.slot], atol=1e-4)
    listen(serving, [(ear, 0, in_chunks(sound(1, 6)))])


def test_the_decoder_is_woken_to_what_it_would_have_heard() -> None:
    """Woken for several Chunks of several calls, it says what it says when it is fed the same Chunks one by one."""
    chunks = 2 * TOGETHER + 1
    pcm = [in_chunks(sound(seed, chunks)) for seed in range(2)]
    config = replace(TWO_TIERS, memory=replace(TWO_TIERS.memory, chunks=chunks))
    serving = serve(replace(config, threshold=1.0))
    ears = [serving.open(PREFIX) for _ in pcm]
    for index in range(chunks):
        serving.config = replace(config, threshold=1.0 if index < chunks - 1 else 0.0)
        serving.hear([(ear, index, own[index]) for ear, own in zip(ears, pcm, strict=True)])
        assert (serving._decoder.memory.times[:2] >= config.memory.prefix).sum() == 0
    single, tokens = serve(config)._decoder, config.tokens
    assert serving._unheard
    fed = serving._unheard.of([[(ear.slot, number) for number in range(chunks)] for ear in ears])
    lives = {ear: Heard(words={chunks - 1: []}) for ear in ears}
    while serving.busy:
        take(lives, serving.write())

    for slot, (ear, own) in enumerate(zip(ears, fed, strict=True)):
        single.open(slot, PREFIX)
        for number, features in enumerate(own):
            single.hear([(slot, number, tokens.keep_silence if number else -1)], features[None])
        chosen = single.write([(slot, tokens.text_begin, 0, chunks - 1, 0, config.words_a_chunk)], 3)
        assert lives[ear].words[chunks - 1] == [token for token in chosen[0].tolist() if token != tokens.text_end]
        assert lives[ear].words[chunks - 1]


@pytest.mark.parametrize("device", DEVICES)
def test_several_chunks_in_a_pass_are_heard_as_one_by_one(device: str) -> None:
    """Also while the oldest are forgotten, beside a row of padding, and whatever was decided at each."""
    config, tokens, chunks = TWO_TIERS, TWO_TIERS.tokens, 3 * TOGETHER
    assert chunks > 2 * config.memory.chunks
    heard = torch.randn(2, chunks, 10, config.features, generator=torch.Generator().manual_seed(1)).to(device)
    silent = tokens.keep_silence
    controls = [[NOTHING, silent, NOTHING, silent, silent, NOTHING] * 2, [NOTHING, silent, silent, silent] * 3]
    one, several = (serve(config, slots=2, device=device)._decoder for _ in range(2))
    several._hear_several = several._hears(TOGETHER, (3,))
    for tier in (one, several):
        for slot in range(2):
            tier.open(slot, PREFIX, said=[[tokens.text_begin, 5, 6, tokens.text_end]])
    for last in range(TOGETHER, chunks + 1, TOGETHER):
        first = last - TOGETHER
        for number in range(first, last):
            one.wake([(slot, number, controls[slot][number]) for slot in range(2)], heard[:, number : number + 1])
        several.wake([(slot, first, *controls[slot][first:last]) for slot in range(2)], heard[:, first:last])
        assert torch.equal(one.memory.times[:2], several.memory.times[:2])
        for kept in ("keys", "values"):
            exact, wide = getattr(one.memory, kept)[:, :2], getattr(several.memory, kept)[:, :2]
            assert (exact - wide).abs().max() < 1e-4
    calls = [(slot, tokens.text_begin, 4, chunks - 1, 0, 3) for slot in range(2)]
    end = tokens.text_end
    said = [[row[: [*row, end].index(end)] for row in tier.write(calls, 3).tolist()] for tier in (one, several)]
    assert said[0] == said[1]
    assert all(said[0])


def test_what_is_kept_for_a_decoder_that_sleeps_takes_no_more_memory() -> None:
    """However long it sleeps, and however far it is behind: a copy, so that no batch is kept for one of its rows."""
    pcm = in_chunks(sound(5, 20))
    serving = serve(replace(TWO_TIERS, threshold=0.0))
    ears = [serving.open(PREFIX) for _ in range(3)]

    def taken() -> int:
        gc.collect()
        return sum(one.nbytes for one in gc.get_objects() if issubclass(type(one), Tensor))

    before = taken()
    for index, chunk in enumerate(pcm):
        serving.hear([(ear, index, chunk) for ear in ears])
    assert len(ears[0].pending) == BEHIND
    serving.config = replace(TWO_TIERS, threshold=1.0)
    for index in range(len(pcm), 2 * len(pcm)):
        serving.hear([(ear, index, pcm[index - len(pcm)]) for ear in ears])
    assert taken() == before
