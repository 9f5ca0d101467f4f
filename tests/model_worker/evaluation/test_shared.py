from __future__ import annotations

import argparse
from collections.abc import Callable

import pytest

from model_worker.evaluation.shared import bar, natural, positive


def test_numbers() -> None:
    assert (positive("0.5"), positive("2"), natural("0"), natural("7")) == (0.5, 2.0, 0, 7)


@pytest.mark.parametrize(
    ("kind", "text", "says"),
    [
        (positive, "0", "must be a number more than 0"),
        (positive, "-1", "must be a number more than 0"),
        (positive, "nan", "must be a number more than 0"),
        (positive, "inf", "must be a number more than 0"),
        (positive, "an hour", "'an hour' is no number"),
        (natural, "-1", "must be 0 or more"),
        (natural, "1.5", "'1.5' is no whole number"),
    ],
)
def test_what_is_none(kind: Callable[[str], float], text: str, says: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match=says):
        kind(text)


@pytest.mark.parametrize("keep", [True, False])
def test_a_bar_on_a_pipe_only_if_it_stays(
    keep: bool, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.delenv(name, raising=False)
    with bar("listening", 2, keep) as told:
        told(1)
        told(1)
    printed = capsys.readouterr()
    assert printed.out == ""
    assert ("listening" in printed.err) == keep
    assert bool(printed.err) == keep
