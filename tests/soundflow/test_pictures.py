"""`offhook soundflow picture`: what it is asked for is looked at before a clip is."""

from __future__ import annotations

from pathlib import Path

import pytest

from calls.settings import Settings
from soundflow.commands import picture

SNEEZE = Path(__file__).resolve().parents[1] / "data" / "noises" / "1-26143-A.ogg"


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["--seconds", "nan"], "--seconds: must be 0.1 seconds or more"),
        (["--seconds", "inf"], "--seconds: must be 0.1 seconds or more"),
        (["--seconds", "0"], "--seconds: must be 0.1 seconds or more"),
        (["--seconds", "-1"], "--seconds: must be 0.1 seconds or more"),
        (["--seconds", "a"], "--seconds: 'a' is no number"),
        (["--out", "p.xyz"], "--out: 'p.xyz': a file that ends in .png"),
    ],
)
def test_what_no_picture_can_be_made_of_is_refused(
    given: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        picture.main([*given, "no-such-clip.ogg"], Settings())
    assert said in capsys.readouterr().err


def test_a_picture_of_a_clip(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("matplotlib", reason="pictures need the extra soundflow")
    out = tmp_path / "steps.PNG"
    assert picture.main(["--seconds", "0.1", "--out", str(out), str(SNEEZE)], Settings()) == 0
    assert out.read_bytes().startswith(b"\x89PNG")
    assert capsys.readouterr().out.splitlines()[-1] == str(out)
