"""espeak-ng, as a process of its own: it speaks every language a little, and tells neural voices their phonemes."""

from __future__ import annotations

import io
import re
import shutil
import subprocess
import wave
from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt

from model_worker.voice import resample, trim
from soundflow.errors import SpeechError

Pcm = npt.NDArray[np.float32]

_TIMEOUT_S = 20.0
_MANNER = re.compile(r"(?P<voice>[^@]+)(@(?P<speed>\d+)(,(?P<pitch>\d+))?)?")
_LANGUAGE = re.compile(r"^ *\d+ +(\S+)|\((\S+) \d+\)", re.MULTILINE)  # in espeak-ng's list, each with its other names
_VARIANT = re.compile(r"!v/(.+?) *(?:\(.*)?$", re.MULTILINE)


def say(text: str, variant: str) -> Pcm:
    """float32 [samples] at 16 kHz, in the voice `en-us+f3`, or with words a minute and pitch `en-us+f3@150,40`.

    Raises SpeechError.
    """
    voice, speed, pitch = _manner(variant)
    wrote = _ask(["-v", voice, "-s", str(speed), "-p", str(pitch), "-b", "1", "--stdin", "--stdout"], text)
    try:
        with wave.open(io.BytesIO(wrote)) as file:
            rate = file.getframerate()
            data = np.frombuffer(file.readframes(file.getnframes()), "<i2")  # a pipe's header says nothing of length
    except (wave.Error, EOFError) as error:
        raise SpeechError(f"espeak-ng -v {voice} wrote no sound for {text!r}") from error
    pcm = trim(resample(data.astype(np.float32) / 32768.0, rate), 0.05)
    if not len(pcm):
        raise SpeechError(f"espeak-ng -v {voice} said nothing of {text!r}")
    return pcm


def _ask(arguments: Sequence[str], text: str = "") -> bytes:
    """What espeak-ng writes. Raises SpeechError."""
    command, named = [program(), *arguments], " ".join(["espeak-ng", *arguments[:2]])
    try:
        done = subprocess.run(command, input=text.encode(), capture_output=True, timeout=_TIMEOUT_S, check=True)
    except subprocess.TimeoutExpired as error:
        raise SpeechError(
            f"{named} took longer than {_TIMEOUT_S:.0f} s. What is finished is kept: run the same command again, when "
            "the machine is less busy"
        ) from error
    except subprocess.CalledProcessError as error:
        said = error.stderr.decode("utf-8", "replace").strip()[:200]
        raise SpeechError(f"{named} failed with status {error.returncode}: {said}") from error
    return done.stdout


def program() -> str:
    """Where espeak-ng is. Raises SpeechError."""
    found = shutil.which("espeak-ng")
    if found is None:
        raise SpeechError("there is no espeak-ng on PATH, and every voice needs it: apt install espeak-ng")
    return found


def find(voices: Iterable[str]) -> None:
    """Raises SpeechError for a voice that it has not: asked for an unknown variant, it speaks as it always does."""
    languages = {own or other for own, other in _LANGUAGE.findall(_ask(["--voices"]).decode(errors="replace"))}
    variants = set(_VARIANT.findall(_ask(["--voices=variant"]).decode(errors="replace")))
    for voice in voices:
        language, plus, variant = _manner(voice.removeprefix("espeak:"))[0].partition("+")
        if language not in languages:
            raise SpeechError(f"{voice}: espeak-ng has no language {language!r}; espeak-ng --voices lists them")
        if plus and variant not in variants:
            raise SpeechError(f"{voice}: espeak-ng has no variant {variant!r}; espeak-ng --voices=variant lists them")


def _manner(variant: str) -> tuple[str, int, int]:
    """Of `en-us+f3@150,40`: espeak-ng's voice, words a minute, pitch. Raises SpeechError."""
    found = _MANNER.fullmatch(variant)
    speed, pitch = (int(found["speed"] or 160), int(found["pitch"] or 50)) if found else (0, 0)
    if not found or not 80 <= speed <= 500 or pitch > 99:
        raise SpeechError(
            f"espeak:{variant}: after the voice only @SPEED or @SPEED,PITCH: 80 to 500 words a minute, and 0 to 99"
        )
    return found["voice"], speed, pitch
