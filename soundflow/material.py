"""What scenes are grounded in: clips, voices, tones and synthesised sounds, by split.

A wanted sound is retrieved from the clip database or, where it has none or now and then for variety, generated.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from calls.audio import SAMPLE_RATE
from model_worker.sounds import Sound
from soundflow import synth
from soundflow.clips import Clip, Clips
from soundflow.compose import Bed, Event
from soundflow.items import Split
from soundflow.policy import CONFUSABLE, SOUNDS
from soundflow.preprocess import preprocess
from soundflow.speech import Cast, Speech

Pcm = npt.NDArray[np.float32]

LENGTHS_S = (2.0, 3.0, 5.0)  # of a sound, at most
_FRAME, _OVER_DB = 320, -30.0
_SYNTH_SHARE = 0.2  # where there are recordings too
_BED_LABELS = ("rain", "sea_waves", "wind", "hum", "engine", "clock_tick", "helicopter", "music", "crackle")


@dataclass(frozen=True)
class Material:
    """All that may be heard. `synthesise`: classes that may be generated, besides recordings."""

    clips: Clips
    speech: Speech
    cast: Cast
    synthesise: tuple[str, ...] = tuple(synth.SYNTHESISED)
    silence_share: float = 0.25  # of beds: digital silence, as voice-activity senders have it
    noise_share: float = 0.2  # of beds: something that the policy calls background
    _prepared: dict[tuple[str, float, bool], Pcm] = field(default_factory=dict, compare=False, repr=False)

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_prepared": {}}

    def labels(self, split: Split, respond: bool | None = None) -> list[str]:
        """Classes that can be heard in a split, in order."""
        known = {clip.label for clip in self.clips.of("sound", split)} | set(self.synthesise)
        return sorted(
            label for label in known if label in SOUNDS and (respond is None or SOUNDS[label].respond == respond)
        )

    def sound(self, rng: np.random.Generator, split: Split, label: str) -> Event:
        """One event of a class, silent until it is `answered`."""
        found = self.clips.of("sound", split, [label])
        longest = float(rng.choice(LENGTHS_S))
        if found and (label not in self.synthesise or rng.random() >= _SYNTH_SHARE):
            clip = found[int(rng.integers(len(found)))]
            pcm = self._event(clip, longest, bool(rng.random() < 0.5))
            source = clip.id
        else:
            seed = int(rng.integers(2**31))
            pcm = synth.SYNTHESISED[label](np.random.default_rng(seed), float(rng.uniform(1.0, longest)))
            source = f"synth/{label}/{seed}"
        policy = SOUNDS[label]
        pcm = until_quiet(pcm)
        return Event(pcm, policy.name, label, early=policy.respond, sources=(source,))

    def policy(self, label: str) -> Sound:
        return SOUNDS[label]

    def confusable(self, label: str, split: Split) -> list[str]:
        """Silent classes that sound like one that deserves a response."""
        there = self.labels(split, respond=False)
        return [other for one, other in CONFUSABLE if one == label and other in there]

    def digits(self, rng: np.random.Generator, split: Split, digits: str) -> list[tuple[Pcm, str]] | None:
        """Each digit by one recorded speaker, with the clip's id; None: there is no such recording."""
        found = self.clips.of("digit", split)
        speakers = sorted({clip.source for clip in found})
        if not speakers:
            return None
        speaker = speakers[int(rng.integers(len(speakers)))]
        said = []
        for digit in digits:
            takes = [clip for clip in found if clip.source == speaker and clip.label == digit]
            if not takes:
                return None
            clip = takes[int(rng.integers(len(takes)))]
            said.append((self.clips.audio(clip), clip.id))
        return said

    def music(self, rng: np.random.Generator, split: Split, seconds: float) -> Event:
        """Hold music: from a recording, or plainly made."""
        found = self.clips.of("music", split)
        if found and rng.random() >= _SYNTH_SHARE:
            clip = found[int(rng.integers(len(found)))]
            pcm = self.clips.audio(clip)
            length = min(len(pcm), int(seconds * SAMPLE_RATE))
            begin = int(rng.integers(0, len(pcm) - length + 1))
            return Event(pcm[begin : begin + length], "hold music", "music", sources=(clip.id,))
        seed = int(rng.integers(2**31))
        made = synth.music(np.random.default_rng(seed), seconds)
        return Event(made, "hold music", "music", sources=(f"synth/music/{seed}",))

    def bed(self, rng: np.random.Generator, split: Split, *, quiet: bool = False) -> Bed:
        """A stream's background. `quiet`: nothing that could be taken for an event."""
        drawn = rng.random()
        if drawn < self.silence_share:
            return Bed(np.zeros(0, np.float32), -120.0)
        if drawn < self.silence_share + self.noise_share and not quiet:
            label = str(rng.choice([name for name in _BED_LABELS if name in self.labels(split, respond=False)]))
            event = self.sound(rng, split, label)
            level = float(rng.uniform(-60.0, -42.0))
            return Bed(event.pcm, level, event.heard, label, event.sources)
        return Bed(synth.room(rng, 10 * SAMPLE_RATE), float(rng.uniform(-75.0, -46.0)))

    def _event(self, clip: Clip, longest_s: float, denoise: bool) -> Pcm:
        key = (clip.id, longest_s, denoise)
        if key not in self._prepared:
            if len(self._prepared) > 1_500:
                self._prepared.clear()
            self._prepared[key] = preprocess(self.clips.audio(clip), longest_s, denoise_it=denoise)
        return self._prepared[key]


def until_quiet(pcm: Pcm) -> Pcm:
    """Without the end that is 30 dB below the loudest 20 ms: an event is over when nothing of it is heard any more, and
    the response to it must not be learned on silence."""
    frames = len(pcm) // _FRAME
    if frames < 2:
        return pcm
    energy = (pcm[: frames * _FRAME].reshape(frames, _FRAME) ** 2).mean(axis=1)
    loud = np.flatnonzero(energy > float(energy.max()) * 10 ** (_OVER_DB / 10))
    return pcm[: (int(loud[-1]) + 1) * _FRAME] if len(loud) else pcm
