"""Which of the sounds that an ear claims are told of: pure, for one participant of one call.

An ear that was taught a few hundred sounds and few voices takes a word here and there for a sound. Whoever understands
words knows better, so words win:

    claimed   the ear's text names a sound; at the end of the Chunk to which it responded
    refused   it is one of VOICED, or the ear is not SURE
              the participant's words lie there, or ended less than SPEECH_S before
    waits     WAIT_S, because words come later than the ear; so long as there is a voice without words, up to VOICE_S
    told      once while it goes on: claims of one sound that are less than SAME_S apart are the same sound
"""

from __future__ import annotations

from dataclasses import dataclass, field

from model_worker.sounds import Sound

VOICED = frozenset({"person_sneeze", "coughing"})
"""Sounds of a mouth. The ear takes "yeah" for a sneeze and the recogniser a sneeze for "yeah": of what is claimed on
ordinary talk nearly all is false, and whoever listens hears a real one anyway."""
SURE = 0.6  # the ear responds from 0.5 on, where it is wrong as often one way as the other; a false hint is the worse
SPEECH_S = 1.6
WAIT_S = 1.2
VOICE_S = 3.0
SAME_S = 15.0
KEPT_S = 30.0  # words older than that refuse nothing any more


@dataclass(frozen=True, slots=True)
class Claim:
    """`score`: how sure the ear is that there is something to respond to."""

    sound: Sound
    at_s: float
    score: float


@dataclass
class Claims:
    """Times are on the call's clock."""

    _open: list[Claim] = field(default_factory=list)  # in the order in which they came
    _words: dict[str, tuple[float, float]] = field(default_factory=dict)  # utterance -> from, to
    _last: dict[str, float] = field(default_factory=dict)  # label -> when it was last believed

    def claim(self, claim: Claim) -> None:
        """The ear says so."""
        if claim.score >= SURE and claim.sound.label not in VOICED:
            self._open.append(claim)

    def words(self, utterance_id: str, start_s: float, end_s: float, text: str) -> None:
        """What was understood, or more of it; without a text it is withdrawn."""
        if text.strip():
            self._words[utterance_id] = (start_s, end_s)
        else:
            self._words.pop(utterance_id, None)

    def due(self, now_s: float, speaking: bool) -> Claim | None:
        """The next sound to be told of, at most one at a time. `speaking`: a voice is heard now, whatever it says."""
        self._words = {name: span for name, span in self._words.items() if span[1] > now_s - KEPT_S}
        for claim in list(self._open):
            if self._is_speech(claim):
                self._open.remove(claim)
            elif now_s >= claim.at_s + (VOICE_S if speaking else WAIT_S):
                self._open.remove(claim)
                if self._is_new(claim):
                    return claim
        return None

    def _is_speech(self, claim: Claim) -> bool:
        return any(begin <= claim.at_s <= end + SPEECH_S for begin, end in self._words.values())

    def _is_new(self, claim: Claim) -> bool:
        label = claim.sound.label
        before, self._last[label] = self._last.get(label), claim.at_s
        return before is None or claim.at_s - before >= SAME_S
