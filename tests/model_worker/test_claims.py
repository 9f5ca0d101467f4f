"""Which claims of a sound are believed, and when."""

from __future__ import annotations

from model_worker.claims import SAME_S, SPEECH_S, SURE, VOICE_S, VOICED, WAIT_S, Claim, Claims
from model_worker.sounds import RESPOND

SOUNDS = {sound.label: sound for sound in RESPOND}


def claim(at_s: float, label: str = "baby_cry", score: float = 0.9) -> Claim:
    return Claim(SOUNDS[label], at_s, score)


def told(claims: Claims, until_s: float, speaking: bool = False, from_s: float = 0.0) -> list[tuple[float, str, float]]:
    """(when it is told, what, when it was heard), Chunk by Chunk."""
    found = []
    for chunk in range(round(from_s / 0.4), round(until_s / 0.4)):
        now_s = round((chunk + 1) * 0.4, 3)
        if (due := claims.due(now_s, speaking)) is not None:
            found.append((now_s, due.sound.label, due.at_s))
    return found


def test_it_is_told_once_there_can_be_no_words_to_it() -> None:
    claims = Claims()
    claims.claim(claim(4.0))
    assert told(claims, 20) == [(round(4.0 + WAIT_S, 3), "baby_cry", 4.0)]


def test_what_a_mouth_makes_and_what_is_not_sure_is_never_told() -> None:
    claims = Claims()
    for label in VOICED:
        claims.claim(claim(4.0, label, 1.0))
    claims.claim(claim(4.0, score=SURE - 0.01))
    assert told(claims, 20) == []
    claims.claim(claim(20.0, score=SURE))
    assert len(told(claims, 40, from_s=20.0)) == 1


def test_a_voice_without_words_makes_it_wait_longer() -> None:
    claims = Claims()
    claims.claim(claim(4.0))
    ((now_s, *_),) = told(claims, 20, speaking=True)
    assert 0 <= now_s - (4.0 + VOICE_S) < 0.4


def test_words_at_that_time_refuse_it_whenever_they_come() -> None:
    for begin, end in ((3.0, 5.0), (4.0, 4.2), (1.0, 4.0 - SPEECH_S)):
        before, after = Claims(), Claims()
        before.words("u1", begin, end, "Well,")
        before.claim(claim(4.0))
        after.claim(claim(4.0))
        after.words("u1", begin, end, "Well,")
        assert told(before, 20) == told(after, 20) == []


def test_words_before_it_and_after_it_do_not() -> None:
    for begin, end in ((1.0, 4.0 - SPEECH_S - 0.1), (4.1, 9.0)):
        claims = Claims()
        claims.words("u1", begin, end, "Well,")
        claims.claim(claim(4.0))
        assert len(told(claims, 20)) == 1


def test_words_that_are_withdrawn_were_none() -> None:
    claims = Claims()
    claims.words("u1", 3.0, 4.0, "Ah")
    claims.words("u1", 3.0, 4.0, "")
    claims.claim(claim(4.0))
    assert len(told(claims, 20)) == 1


def test_a_sound_that_goes_on_is_told_of_once() -> None:
    claims = Claims()
    found = []
    for at_s in (4.0, 8.8, 14.0, 14.4, 28.0):
        claims.claim(claim(at_s))
        found += told(claims, at_s + 2, from_s=at_s)
    assert [at_s for *_, at_s in found] == [4.0]
    claims.claim(claim(28.0 + SAME_S))
    assert len(told(claims, 60, from_s=28.0 + SAME_S)) == 1  # it has begun anew


def test_a_refused_claim_does_not_count_as_heard_before() -> None:
    claims = Claims()
    claims.words("u1", 3.0, 5.0, "Well,")
    claims.claim(claim(4.0))
    claims.claim(claim(8.0))
    assert [at_s for *_, at_s in told(claims, 20)] == [8.0]


def test_two_sounds_are_told_of_one_after_the_other() -> None:
    claims = Claims()
    claims.claim(claim(4.0))
    claims.claim(claim(4.4, "siren"))
    claims.claim(claim(4.4, "smoke_alarm"))
    found = told(claims, 20)
    assert [label for _, label, _ in found] == ["baby_cry", "siren", "smoke_alarm"]
    assert len({now_s for now_s, *_ in found}) == 3
