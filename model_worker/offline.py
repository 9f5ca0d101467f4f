"""The better transcript of a recorded call, and its summary: `python -m model_worker.offline --recording call.wav`.

Reads a WAV of any length in blocks (caller left, agent right), finds the speech of each channel, transcribes it with
the final recogniser and writes JSON to standard output:

    {"utterances": [{participant_id, start_s, end_s, text, words, confidence}], "summary": "...", "disposition": "..."}

What a voice agent said is known and comes on standard input as {"answers": [{id, at_s, text}]}; with `--only caller`
its channel is not listened to. Exit status 2: the recording cannot be read; 3: weights are missing.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
import wave
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from calls.audio import SAMPLE_RATE
from calls.errors import OffhookError
from calls.log import setup
from calls.resample import Resampler
from calls.settings import Settings
from model_worker import summary
from model_worker.archives import CatalogueError
from model_worker.cascade.finals import Final, FinalRecogniser
from model_worker.cascade.language import LanguageModel, LocalLanguageModel, RemoteLanguageModel
from model_worker.cascade.vad import WINDOW, SpeechGate, VoiceActivity, VoiceState
from model_worker.catalogue import Catalogue

log = logging.getLogger("model_worker.offline")

Pcm = npt.NDArray[np.float32]

BLOCK_S = 20  # of audio read at once
GAP_S = 0.7  # silence that ends an utterance
LONGEST_S = 25.0  # an utterance is cut at its quietest place before that
MARGIN_S = 0.25  # of audio kept before and after the voice
_WINDOW_S = WINDOW / SAMPLE_RATE
_MARGIN = round(MARGIN_S / _WINDOW_S)
_GAP = round(GAP_S / _WINDOW_S)
_LONGEST = round(LONGEST_S / _WINDOW_S)


class RecordingError(OffhookError):
    """The recording is not there or is not a WAV that we can read."""


@dataclass(frozen=True, slots=True)
class Segment:
    """A stretch of one channel that holds speech. `start_s` is where `pcm` begins, with a margin before and after the
    voice, which lies from `voice_s` to `quiet_s`."""

    start_s: float
    pcm: Pcm
    voice_s: float
    quiet_s: float

    def within(self, seconds: float) -> float:
        """A time in `pcm` on the recording's clock. The recogniser likes to stretch the outer words over the silence
        around them: no word lies outside the voice."""
        return round(min(max(self.start_s + seconds, self.voice_s), self.quiet_s), 2)


@dataclass
class Segmenter:
    """Cuts one channel at its silences. Holds one utterance at most."""

    voice: VoiceActivity
    state: VoiceState = field(default_factory=VoiceState)
    gate: SpeechGate = field(default_factory=SpeechGate)
    _rest: Pcm = field(default_factory=lambda: np.zeros(0, np.float32))
    _windows: list[Pcm] = field(default_factory=list)  # of the utterance, or the margin before the next one
    _chances: list[float] = field(default_factory=list)
    _first: int = 0  # index of the first of them
    _spoken: bool = False

    def feed(self, pcm: Pcm) -> Iterator[Segment]:
        """Take 16 kHz float32 mono [samples] of any length; gives the utterances that ended in it."""
        chances = self.voice.feed(self.state, pcm)
        joined = np.concatenate([self._rest, pcm])
        whole = len(chances) * WINDOW
        self._rest = joined[whole:]
        for window, chance in zip(joined[:whole].reshape(-1, WINDOW), chances, strict=True):
            self._windows.append(window)
            self._chances.append(chance)
            self._spoken = self.gate.feed(chance) or self._spoken
            if not self._spoken:
                self._drop(len(self._windows) - _MARGIN)
            elif not self.gate.speaking and self.gate.quiet >= _GAP:
                yield self._take(len(self._windows) - self.gate.quiet + _MARGIN)
                self._spoken = False
            elif len(self._windows) >= _LONGEST:
                late = self._chances[_LONGEST // 2 :]
                yield self._take(_LONGEST // 2 + int(np.argmin(late)) + 1)

    def close(self) -> Iterator[Segment]:
        """The recording has ended."""
        if self._spoken:
            yield self._take(len(self._windows))

    def _take(self, windows: int) -> Segment:
        voiced = [i for i, chance in enumerate(self._chances[:windows]) if chance >= self.gate.leave]
        first, last = (voiced[0], voiced[-1]) if voiced else (0, windows - 1)
        segment = Segment(
            self._first * _WINDOW_S,
            np.concatenate(self._windows[:windows]),
            (self._first + first) * _WINDOW_S,
            (self._first + last + 1) * _WINDOW_S,
        )
        self._drop(windows)
        return segment

    def _drop(self, windows: int) -> None:
        if windows > 0:
            del self._windows[:windows], self._chances[:windows]
            self._first += windows


def read(path: Path) -> Iterator[npt.NDArray[np.float32]]:
    """The recording in blocks of [samples, channels] at 16 kHz. Raises RecordingError."""
    try:
        with wave.open(str(path), "rb") as file:
            channels, rate = file.getnchannels(), file.getframerate()
            if file.getsampwidth() != 2 or channels not in (1, 2):
                raise RecordingError(f"{path} is not 16-bit mono or stereo PCM")
            resamplers = [Resampler(rate, SAMPLE_RATE) for _ in range(channels)] if rate != SAMPLE_RATE else []
            while data := file.readframes(BLOCK_S * rate):
                block = np.frombuffer(data[: len(data) // (2 * channels) * 2 * channels], "<i2").reshape(-1, channels)
                if resamplers:
                    block = np.pad(block, ((0, -len(block) % (rate // 400)), (0, 0)))  # it takes whole 2.5 ms
                    block = np.stack([resampler(block[:, i]) for i, resampler in enumerate(resamplers)], axis=1)
                yield (block / 32768).astype(np.float32)
    except (OSError, EOFError, wave.Error, ValueError) as error:
        raise RecordingError(f"cannot read {path}: {error}") from error


def transcribe(
    blocks: Iterator[Pcm], participants: Sequence[str], voice: VoiceActivity, recognise: Callable[[Pcm, str], Final]
) -> list[dict[str, Any]]:
    """Utterances of `participants` ("caller" is the left channel, anybody else the right), in order of their start."""
    segmenters = {participant_id: Segmenter(voice) for participant_id in participants}
    prompts = dict.fromkeys(participants, "")
    found: list[dict[str, Any]] = []

    def add(participant_id: str, segments: Iterator[Segment]) -> None:
        for segment in segments:
            final = recognise(segment.pcm, prompts[participant_id])
            if final.text:
                prompts[participant_id] = final.text
                found.append(_utterance(participant_id, segment, final))

    for block in blocks:
        for participant_id, segmenter in segmenters.items():
            channel = 0 if participant_id == "caller" else 1
            if channel < block.shape[1]:
                add(participant_id, segmenter.feed(np.ascontiguousarray(block[:, channel])))
    for participant_id, segmenter in segmenters.items():
        add(participant_id, segmenter.close())
    return sorted(found, key=lambda utterance: (utterance["start_s"], utterance["participant_id"]))


def _utterance(participant_id: str, segment: Segment, final: Final) -> dict[str, Any]:
    """As calls.model.Utterance, on the call's clock; it begins and ends with its words."""
    words = [
        {
            "text": word.text,
            "start_s": segment.within(word.start_s),
            "end_s": segment.within(word.end_s),
            "probability": round(word.probability, 3),
        }
        for word in final.words
    ]
    return {
        "participant_id": participant_id,
        "start_s": words[0]["start_s"] if words else round(segment.voice_s, 2),
        "end_s": words[-1]["end_s"] if words else round(segment.quiet_s, 2),
        "text": final.text,
        "words": words,
        "confidence": round(final.confidence, 3),
    }


def lines_of(utterances: Sequence[dict[str, Any]], answers: Sequence[dict[str, Any]]) -> list[summary.Line]:
    """The talk, in order: people's utterances and what was heard of a voice agent's answers."""
    people = [
        summary.Line(said["start_s"], "Caller" if said["participant_id"] == "caller" else "Agent", said["text"])
        for said in utterances
    ]
    machine = [
        summary.Line(answer["at_s"], "Agent", answer["text"], answer.get("id", "").rstrip("0123456789").rstrip("-"))
        for answer in answers
        if answer["text"]
    ]
    return sorted([*people, *machine], key=lambda line: line.at_s)


def language_model(settings: Settings, catalogue: Catalogue) -> LanguageModel | None:
    """The tenant's own, or the better of the local ones that are here; None without either, for a summary can be had
    without."""
    if settings.language_model_url:
        return RemoteLanguageModel(
            settings.language_model_url, settings.language_model_name, api_key=settings.language_model_key
        )
    for name in ("qwen-1.5b", "qwen-0.5b"):
        try:
            return LocalLanguageModel(catalogue.path(name) / "model.gguf", threads=1, slots=1)
        except OffhookError as error:
            log.debug("not %s: %s", name, error)
    log.warning("a summary without a language model: no weights")
    return None


def wrap_up(path: Path, participants: Sequence[str], answers: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Everything that the job after a call wants to know. Raises RecordingError, CatalogueError."""
    settings = Settings()
    catalogue = Catalogue(settings.models, overrides=os.environ)
    voice = VoiceActivity(catalogue.path("silero-vad"))
    recogniser = FinalRecogniser(catalogue.path("whisper-base"))
    utterances = transcribe(read(path), participants, voice, recogniser.transcribe)
    del recogniser  # two models are not needed in memory at once
    lines = lines_of(utterances, answers)
    spoken = any(line.speaker == "Caller" for line in lines)
    text = summary.summarise(lines, language_model(settings, catalogue) if spoken else None)
    return {"utterances": utterances, "summary": text, "disposition": summary.disposition(lines)}


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m model_worker.offline", description=__doc__)
    parser.add_argument("--recording", type=Path, required=True)
    parser.add_argument("--only", action="append", metavar="PARTICIPANT", help="caller, human_agent; default: both")
    parser.add_argument("--json", action="store_true", help="one line of JSON instead of a readable transcript")
    options = parser.parse_args(arguments)
    setup("INFO", "offline")
    try:
        known = {} if sys.stdin is None or sys.stdin.isatty() else json.loads(sys.stdin.read() or "{}")
        result = wrap_up(options.recording, options.only or ["caller", "human_agent"], known.get("answers", []))
    except CatalogueError as error:
        print(error, file=sys.stderr)
        return 3
    except (RecordingError, ValueError) as error:
        print(error, file=sys.stderr)
        return 2
    if options.json:
        print(json.dumps(result))
    else:
        for said in result["utterances"]:
            print(f"{said['start_s']:8.2f} {said['participant_id']:>12}  {said['text']}")
        print(f"\n{result['summary']}\n[{result['disposition']}]")
    return 0


if __name__ == "__main__":
    # The language model's threads need not be waited for.
    status = main()
    sys.stdout.flush()
    os._exit(status)
