"""The figures of a run: shares, rates and times with their 95 % confidence intervals, beside two baselines.

Every expectation is one case (an item without `events` is one), and cases count alike. What cannot be told (a share of
nothing, balanced accuracy where only one thing is expected, how sure a mean of one time is) is None.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from calls.audio import CHUNK_S
from model_worker.evaluation import intervals, kinds
from model_worker.evaluation.scoring import Case, Score, wakes_of

Figures = dict[str, Any]


def figures(scores: Sequence[Score]) -> Figures:
    """Everything that `--json` prints, but for the names of model and channel."""
    cases = [case for score in scores for case in score.cases]
    found: Figures = {"ci95": {}}
    _decisions(found, cases)
    _words(found, scores, cases)
    _times(found, cases)
    _wakes(found, scores)
    found["baselines"] = baselines(scores)
    found["kinds"] = _each(scores, lambda score: score.item.kind)
    found["tasks"] = _each([score for score in scores if score.item.task], lambda score: score.item.task)
    found["counts"] = {
        **_counts(scores, cases),
        "hours": round(sum(score.hours for score in scores), 4),
        "premature": sum(case.premature for case in cases),
        "undecided": sum(score.undecided for score in scores),
    }
    found["items"] = [_item(score) for score in scores]
    return found


def _counts(scores: Sequence[Score], cases: Sequence[Case]) -> Figures:
    respond = sum(case.expected.respond for case in cases)
    return {"items": len(scores), "cases": len(cases), "respond": respond, "silent": len(cases) - respond}


def _decisions(found: Figures, cases: Sequence[Case]) -> None:
    wanted = [case.responded for case in cases if case.expected.respond]
    unwanted = [not case.responded for case in cases if not case.expected.respond]
    _share(found, "accuracy", [case.right for case in cases])
    _share(found, "respond_recall", wanted)
    _share(found, "silent_recall", unwanted)
    _share(found, "safety_misses", [not case.responded for case in cases if case.is_safety])
    found["balanced_accuracy"] = found["ci95"]["balanced_accuracy"] = None
    if wanted and unwanted:
        found["balanced_accuracy"] = _round((sum(wanted) / len(wanted) + sum(unwanted) / len(unwanted)) / 2)
        both = intervals.mean_of_two(sum(wanted), len(wanted), sum(unwanted), len(unwanted))
        found["ci95"]["balanced_accuracy"] = _pair(both)


def _words(found: Figures, scores: Sequence[Score], cases: Sequence[Case]) -> None:
    _share(found, "label_accuracy", [case.names_label for case in cases if case.names_label is not None])
    _share(found, "reply_accuracy", [case.says_reply for case in cases if case.says_reply is not None])
    spoken = [score for score in scores if score.words]
    found["wer"] = found["ci95"]["wer"] = None
    if spoken:
        wrong, total = [score.word_errors for score in spoken], [score.words for score in spoken]
        found["wer"] = _round(sum(wrong) / sum(total))
        # Where no word is wrong, or every one, all draws are alike: then every word counts as one trial.
        same = not any(wrong) or wrong == total
        interval = intervals.wilson(sum(wrong), sum(total)) if same else intervals.bootstrap(wrong, total)
        found["ci95"]["wer"] = _pair(interval)


def _times(found: Figures, cases: Sequence[Case]) -> None:
    late = [case.late_s for case in cases if case.late_s is not None]
    found["trigger_error_s"] = found["trigger_late_s"] = found["ci95"]["trigger_error_s"] = None
    if late:
        found["trigger_error_s"] = _round(statistics.fmean(map(abs, late)))
        found["trigger_late_s"] = _round(statistics.median(late))
        found["ci95"]["trigger_error_s"] = _pair(intervals.bootstrap([abs(one) for one in late]))


def _wakes(found: Figures, scores: Sequence[Score]) -> None:
    found["false_wakes_per_hour"], found["ci95"]["false_wakes_per_hour"] = {}, {}
    for where in (kinds.SILENCE, kinds.NOISE):
        quiet = [score for score in scores if wakes_of(score.item) == where]
        hours, wakes = sum(score.hours for score in quiet), sum(score.responses for score in quiet)
        low, high = intervals.poisson(wakes)
        rate = _round(wakes / hours) if quiet else None
        found["false_wakes_per_hour"][where] = rate
        found["ci95"]["false_wakes_per_hour"][where] = _pair((low / hours, high / hours)) if quiet else None


def baselines(scores: Sequence[Score]) -> Figures:
    """What a model would get that never, or at every Chunk, responds. Neither writes a word."""
    cases = [case for score in scores for case in score.cases]
    respond = sum(case.expected.respond for case in cases)
    silent, safety = len(cases) - respond, any(case.is_safety for case in cases)
    both = 0.5 if respond and silent else None

    def one(speaks: bool) -> Figures:
        return {
            "accuracy": _round((respond if speaks else silent) / len(cases)) if cases else None,
            "balanced_accuracy": both,
            "respond_recall": float(speaks) if respond else None,
            "silent_recall": float(not speaks) if silent else None,
            "safety_misses": float(not speaks) if safety else None,
            "false_wakes_per_hour": {
                where: (3600 / CHUNK_S if speaks else 0.0) if any(wakes_of(s.item) == where for s in scores) else None
                for where in (kinds.SILENCE, kinds.NOISE)
            },
        }

    return {"always_silent": one(False), "always_respond": one(True)}


def _each(scores: Sequence[Score], group_of: Callable[[Score], str]) -> Figures:
    """The figures of each group by itself, in the order in which they first come."""
    groups: dict[str, list[Score]] = {}
    for score in scores:
        groups.setdefault(group_of(score), []).append(score)
    found: Figures = {}
    for name, group in groups.items():
        cases = [case for score in group for case in score.cases]
        part: Figures = {"ci95": {}, **_counts(group, cases)}
        _decisions(part, cases)
        _words(part, group, cases)
        _times(part, cases)
        found[name] = part
    return found


def _item(score: Score) -> Figures:
    first = score.first
    item: Figures = {
        "audio": score.item.audio,
        "decided": "silent" if first is None else "respond",
        "at_s": None if first is None else first.at_s,
        "text": score.text,
        "kind": score.item.kind,
        "task": score.item.task,
        "line": score.item.line,
        "right": all(case.right for case in score.cases),
    }
    only = score.cases[0]
    if len(score.cases) == 1 and only.expected.end_s is None:
        return item | _expectation(only)
    return item | {"events": [_event(case) for case in score.cases]}


def _event(case: Case) -> Figures:
    decided = {"decided": "respond" if case.responded else "silent", "at_s": case.at_s, "text": case.text}
    where = {"begins_s": case.expected.at_s, "ends_s": case.expected.end_s, "right": case.right}
    return decided | where | _expectation(case)


def _expectation(case: Case) -> Figures:
    return {
        "expect": "respond" if case.expected.respond else "silent",
        "label": case.expected.label,
        "names_label": case.names_label,
        "says_reply": case.says_reply,
        "late_s": case.late_s,
        "premature": case.premature,
    }


def _share(found: Figures, name: str, hits: Iterable[bool | None]) -> None:
    known = [bool(hit) for hit in hits]
    found[name] = _round(sum(known) / len(known)) if known else None
    found["ci95"][name] = _pair(intervals.wilson(sum(known), len(known))) if known else None


def _pair(interval: intervals.Interval | None) -> list[float] | None:
    return None if interval is None else [_round(one) for one in interval]


def _round(number: float) -> float:
    return round(float(number), 4)
