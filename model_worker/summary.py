"""What a call was about, in two or three sentences, and how it ended: for the people who read it afterwards.

A small language model writes the summary from the transcript. It may invent, so what it writes is believed only if its
words are the call's own; otherwise the call's own sentences stand in its place.
"""

# ruff: noqa: SIM905 - a list of words reads best as a sentence

from __future__ import annotations

import logging
import re
import threading
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from model_worker.cascade.language import LanguageModel, LanguageModelError

log = logging.getLogger(__name__)

MOST_WORDS = 1_200  # of the transcript that the model is given: its beginning and its end
SHORTEST, LONGEST = 6, 110  # words of a believable summary
MOST_SENTENCES = 3
SAME = 0.7  # share of words in common from which two sentences say the same
OWN_WORDS = 0.6  # share of its content words that must occur in the call
_ASK = (
    "Below is a telephone call. Write a summary of it in two sentences for a colleague. First sentence: why the caller "
    "rang. Second sentence: how it ended.\n\n"
)
_REPORTING = frozenset(
    "caller called calls call agent assistant asked asks asking said says telephone phone summary wanted wants about "
    "then that this they their with from have were what when which would could should explained explains told informed "
    "also after before because customer help helped information provided inquired requested".split()
)


@dataclass(frozen=True, slots=True)
class Line:
    """Something that was said. `kind` is the id of a voice agent's answer without its number, "" for a person."""

    at_s: float
    speaker: str  # "Caller" or "Agent"
    text: str
    kind: str = ""


def summarise(lines: Sequence[Line], model: LanguageModel | None) -> str:
    """Two or three sentences; "" for a call on which nobody said anything."""
    if not any(line.speaker == "Caller" for line in lines):
        return "The caller said nothing." if lines else ""
    if model is not None:
        try:
            written = _write(lines, model)
        except LanguageModelError as error:
            log.warning("no summary by the language model: %s", error)
        else:
            if reason := why_not(written, lines):
                log.info("summary not believed (%s): %s", reason, written)
            else:
                return written
    return extract(lines)


def _write(lines: Sequence[Line], model: LanguageModel) -> str:
    message = {"role": "user", "content": _ASK + transcript(lines)}
    text = "".join(model.stream([message], max_tokens=110, stop=threading.Event()))
    return tidy(text)


def tidy(text: str) -> str:
    """At most MOST_SENTENCES whole sentences (the token limit may have cut the last), none of them said twice."""
    sentences = re.findall(r"[^.!?]+[.!?]+(?=\s|$)", " ".join(text.replace("*", "").split()))
    kept: list[str] = []
    for sentence in (sentence.strip() for sentence in sentences):
        words = set(_words(sentence))
        if any(len(words & (other := set(_words(said)))) >= SAME * min(len(words), len(other)) for said in kept):
            break  # from here on a small model goes round in circles
        kept.append(sentence)
    return " ".join(kept[:MOST_SENTENCES])


def transcript(lines: Sequence[Line], most_words: int = MOST_WORDS) -> str:
    """The call as text; of a long one the first two thirds of `most_words`, and the end."""
    spoken = [f"{line.speaker}: {line.text}" for line in lines]
    if sum(len(line.split()) for line in spoken) > most_words:
        first = _fitting(spoken, most_words * 2 // 3)
        last = _fitting(spoken[::-1], most_words // 3)
        spoken = [*spoken[:first], "[...]", *spoken[max(first, len(spoken) - last) :]]
    return "\n".join(spoken)


def _fitting(spoken: Sequence[str], words: int) -> int:
    """How many of the lines have `words` words together; one at least."""
    for count, line in enumerate(spoken):
        words -= len(line.split())
        if words < 0:
            return max(count, 1)
    return len(spoken)


def why_not(summary: str, lines: Sequence[Line]) -> str:
    """Why a summary is not believed, "" if it is."""
    words = _words(summary)
    if not SHORTEST <= len(words) <= LONGEST:
        return f"{len(words)} words"
    if re.search(r"(?i)\b(as an ai|language model|i cannot|i'm sorry|caller:|agent:)", summary):
        return "it is not a summary"
    content = [word for word in words if len(word) > 3 and word not in _REPORTING]
    spoken = {_stem(word) for line in lines for word in _words(line.text)}
    own = sum(_stem(word) in spoken for word in content)
    if not content or own / len(content) < OWN_WORDS:
        return f"only {own} of {len(content)} words are from the call"
    numbers = set(re.findall(r"\d+", summary)) - set(re.findall(r"\d+", " ".join(line.text for line in lines)))
    return f"numbers that nobody said: {sorted(numbers)}" if numbers else ""


def extract(lines: Sequence[Line]) -> str:
    """The call's own words: what the caller came with, and the agent's most telling reply to it."""
    caller = [line for line in lines if line.speaker == "Caller"]
    about = next((line for line in caller if len(_words(line.text)) >= 5), caller[0])
    counted = Counter(_stem(word) for line in lines for word in set(_words(line.text)) if len(word) > 3)
    replies = [line for line in lines if line.speaker == "Agent" and line.at_s > about.at_s]
    said = f"The caller said: “{_short(about.text)}”"
    if not replies:
        return said
    reply = max(replies, key=lambda line: sum(counted[_stem(word)] for word in set(_words(line.text))))
    return f"{said} The agent said: “{_short(reply.text)}”"


def disposition(lines: Sequence[Line]) -> str:
    """How the call ended, by rules: "no speech", "message taken", "unanswered", "resolved" or "completed"."""
    kinds = {line.kind for line in lines}
    if not any(line.speaker == "Caller" for line in lines):
        return "no speech"
    if "noted" in kinds:
        return "message taken"
    if kinds & {"unknown", "person", "trouble"}:
        return "unanswered"
    closing = " ".join(line.text.lower() for line in list(lines)[-6:])
    return "resolved" if re.search(r"\b(thank|thanks|great|perfect|bye|goodbye)\b", closing) else "completed"


def _words(text: str) -> list[str]:
    return re.findall(r"[a-z0-9']+", text.lower().replace("’", "'"))


def _stem(word: str) -> str:
    """Enough to let "changes" and "changed" meet."""
    return re.sub(r"(?:'s|ing|ed|es|s)$", "", word)[:6]


def _short(text: str, most: int = 40) -> str:
    words = text.split()
    return " ".join(words[:most]) + (" …" if len(words) > most else "")
