"""Streaming translation: an utterance in the one language is written in the other when it has ended.

Small hand-written pairs; speech in other languages is espeak-ng's.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

from calls.model import Mode
from soundflow.compose import Plan
from soundflow.tasks.draw import LANGUAGES, Draw, SubTask
from soundflow.tasks.words import sentence

_INTO = "The other side speaks {language}. Write in English what is said."
_OUT = "Write in {language} what is said in English."
_MIXED = "Whenever something is said in {language}, write it in English. What is said in English needs nothing."
_PHRASES = Path(__file__).with_name("phrases.tsv")


@cache
def phrases() -> tuple[dict[str, str], ...]:
    """Language -> the same sentence, for each sentence; one with {n} has a number in it."""
    languages, *rows = (line.split("\t") for line in _PHRASES.read_text(encoding="utf-8").splitlines())
    return tuple(dict(zip(languages, row, strict=True)) for row in rows)


def into_english(draw: Draw) -> Plan:
    language, voices = _person(draw)
    said = [draw.say(pair[language], voices).answered(pair["en"]) for pair in _pairs(draw)]
    return draw.plan(Mode.ASSIST, _INTO.format(language=LANGUAGES[language]), draw.padded(said))


def out_of_english(draw: Draw) -> Plan:
    language, voices = draw.pick(sorted(LANGUAGES)), draw.voices()
    said = [draw.say(pair["en"], voices).answered(pair[language]) for pair in _pairs(draw)]
    return draw.plan(Mode.ASSIST, _OUT.format(language=LANGUAGES[language]), draw.padded(said))


def numbers_kept(draw: Draw) -> Plan:
    """Either way; the digits are the same on both sides."""
    language, foreign = _person(draw)
    into = draw.chance(0.5)
    voices = foreign if into else draw.voices()
    said = []
    for _ in range(draw.any((1, 2))):
        pair, number = (
            draw.pick([pair for pair in phrases() if "{n}" in pair["en"]]),
            str(int(draw.content.integers(2, 10 ** int(draw.content.integers(1, 5))))),
        )
        heard, reply = (pair[language], pair["en"]) if into else (pair["en"], pair[language])
        said.append(draw.say(heard.format(n=number), voices).answered(reply.format(n=number)))
    instruction = (_INTO if into else _OUT).format(language=LANGUAGES[language])
    return draw.plan(Mode.ASSIST, f"{instruction} Write numbers in digits.", draw.padded(said))


def mixed(draw: Draw) -> Plan:
    """Somebody changes between two languages; only the foreign sentences are translated."""
    language, foreign = _person(draw)
    english = draw.voices()
    said = []
    for pair in _pairs(draw):
        said.append(draw.say(pair[language], foreign).answered(pair["en"]))
        if draw.chance(0.7):
            said.append(draw.say(sentence(draw.content), english))
    order = draw.rng.permutation(len(said))
    return draw.plan(Mode.ASSIST, _MIXED.format(language=LANGUAGES[language]), draw.padded([said[i] for i in order]))


def _person(draw: Draw) -> tuple[str, list[str]]:
    language = draw.pick(sorted(LANGUAGES))
    return language, draw.voices(language)


def _pairs(draw: Draw) -> list[dict[str, str]]:
    return [draw.pick([pair for pair in phrases() if "{n}" not in pair["en"]]) for _ in range(draw.any((1, 2, 3)))]


TASKS = (
    SubTask("translation/into-english", "translation", "English for each foreign utterance, at its end", into_english),
    SubTask("translation/out-of-english", "translation", "the other language for each English one", out_of_english),
    SubTask("translation/numbers", "translation", "the same digits on both sides, either direction", numbers_kept),
    SubTask("translation/mixed", "translation", "only the foreign sentences; English ones are silent", mixed),
)
