"""Calls served by each of the models that come with offhook: through hold music to a human, and a sound to be told of.

How well it decides is measured by `offhook eval`; here its decisions travel the whole way, from SIP to the database.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from calls.audio import CHUNK_S
from model_worker.sounds import named
from soundflow.clips import decode
from tests.system.conftest import PROMPTS, System, start, stop, write_wav

# Nothing of these was trained on: the piece of the hold music that was left out, and a sneeze of ESC-10's fold 4.
MUSIC = Path("/usr/share/asterisk/moh/macroform-cold_day.wav")
SNEEZE = Path(__file__).parents[1] / "data" / "noises" / "4-167642-A.ogg"


@pytest.fixture(scope="module", params=["small", "compact"])
def serving(server_folder: Path, request: pytest.FixtureRequest) -> Iterator[System]:
    """A service of this file's own."""
    system = start(server_folder / request.param, OFFHOOK_MODEL=f"interaction:{request.param}")
    yield system
    stop(system)


def placed(serving: System, until: Callable[..., None], *arguments: str) -> dict[str, Any]:
    """The story of a call that is placed when /healthz says that there is room for it: after its start, while a
    language model on a CPU reads the cards, and after a call that kept it too busy, there is none for some seconds."""
    url = f"{serving.running.url}/healthz"
    until(lambda: httpx.get(url).status_code == 200, 60, "room for a call")
    story = serving.place("sip", *arguments)
    assert story["state"] == "ended", story
    return story


def responses(serving: System, story: dict[str, Any]) -> list[float]:
    """The second at which each Chunk of the caller's ended that was responded to."""
    decisions = serving.client.get(f"/api/v1/calls/{story['id']}/decisions")["decisions"]
    assert len(decisions) == story["decisions"]["chunks"]
    return [(d["chunk"] + 1) * CHUNK_S for d in decisions if d["participant"] == "caller" and d["choice"] != "silent"]


def test_it_is_silent_through_hold_music_and_wakes_at_the_human(
    serving: System, until: Callable[..., None], say: Callable[..., Path], cut: Callable[..., Path]
) -> None:
    music = cut(MUSIC, 20, 32)
    # A phrase that wakes it wherever its Chunks begin; of how many phrases that holds is in the card of `small`.
    caller = say(1.0, music, 1.0, "vm-msgsaved", 1.0)
    speech_s = len(cut(PROMPTS / "vm-msgsaved.wav", 0, 60).read_bytes()) / 32_000
    story = placed(serving, until, "--caller", str(caller), "--linger", "12" if serving.data.name == "compact" else "3")
    found = responses(serving, story)
    begin = 1.0 + 12.0 + 1.0  # of the human
    assert found, story["decisions"]
    assert begin < found[0] <= begin + speech_s + 1.2, found
    assert any(answer["id"] != "greeting" for answer in story["answers"])


def test_a_sneeze_is_a_hint(
    serving: System, until: Callable[..., None], say: Callable[..., Path], tmp_path: Path
) -> None:
    pcm = (decode(SNEEZE)[0] * 32767).astype("<i2").tobytes()
    caller = say(4.0, write_wav(tmp_path / "sneeze.wav", pcm), 4.0)
    story = placed(serving, until, "--mode", "assist", "--caller", str(caller), "--agent", str(say(12.0)))
    found = responses(serving, story)
    assert found, story["decisions"]
    assert 4.0 < found[0] < 8.0, found
    told = [named(hint["text"]) for hint in story["hints"]]
    assert told
    assert None not in told
    if serving.data.name == "small":  # compact takes some sneezes for babies, and tells of some twice: see its card
        assert [sound.label for sound in told if sound] == ["person_sneeze"]
