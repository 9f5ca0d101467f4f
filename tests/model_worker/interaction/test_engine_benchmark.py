"""benchmarks/engine.py runs, does the work that it says it does, and compares what is the same."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("torch", reason="the interaction extra (torch, transformers) is not installed: scripts/setup test")

import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.engine import main
from benchmarks.engine_baseline import Everything, PublicServer, count_work
from benchmarks.engine_model import (
    SPEAKS,
    VOICE,
    checkpoint_of,
    compiled,
    instruction,
    nothing_compiled_since,
    random_checkpoint,
    recording,
    rehearse,
    sized,
    slot_bytes,
    with_chunks,
)
from benchmarks.engine_ramp import PHASES, phases_of
from benchmarks.engine_summary import lines
from calls.audio import CHUNK_SAMPLES
from model_worker.interaction.config import OMNI_3B, PRESETS, TEST
from model_worker.interaction.formats.shapes import model_shapes
from model_worker.interaction.perception import Perception

CPU = torch.device("cpu")
ROOT = Path(__file__).resolve().parents[3]
AUDIO = recording(VOICE)[:40]


def test_it_runs(tmp_path: Path) -> None:
    file = tmp_path / "figures.json"
    small = {"size": "test", "calls": "1,2", "seconds": 0.8, "speaking": 1, "ages": 2, "minutes": 1, "cycles": 2}
    small |= {"threads": 1, "json": file}
    found = main([word for name, value in small.items() for word in (f"--{name}", str(value))])
    assert json.loads(file.read_text()) == found
    [window] = found["windows"]
    assert window["ramp"]["steps"][0]["calls"] == 1
    assert window["ramp"]["holds"] in (0, 1, 2)
    [age] = window["baseline"]["ages"]
    work = count_work(TEST)
    assert age["work"] == pytest.approx(work.theirs(6) / work.ours(), abs=0.1)
    assert set(window["age"]) > {"silent", "speaking"}
    told = list(lines("1k", found))
    assert f"1k: {'holds' if window['ramp']['holds'] else 'does not hold'}" in told[0]
    assert any("a call 2 s old" in line for line in told)
    assert "minute 1 beside minute 1" in told[-1]


def test_a_response_that_is_planned_is_written_as_any_other() -> None:
    config = sized(TEST, None)
    serving = rehearse(random_checkpoint("test", 1, CPU, torch.float32), config, 2, 32)
    ears = [serving.open(instruction(config)) for _ in range(2)]
    serving.plan = lambda ear, index: ear is ears[0] and index == 1
    words, responded = 0, []
    for index in range(2 + SPEAKS):
        judged, said = serving.hear([(ear, index, AUDIO[index]) for ear in ears])
        responded += [(ears.index(one.ear), one.index) for one in judged if one and one.respond]
        words += sum(len(one.tokens) for one in said)
        assert (ears[0].text is not None) == (1 <= index < 1 + SPEAKS)
    assert responded == [(0, 1)]
    assert words == config.longest == SPEAKS * config.words_a_chunk - 2


def test_all_encoded_again_is_the_same_to_the_network() -> None:
    checkpoint = random_checkpoint("test", 1, CPU, torch.float32)
    perception, everything = Perception(TEST, 1), Everything(checkpoint)
    perception.load(checkpoint.tower)
    for pcm in AUDIO[:6]:
        ours = perception.hear(torch.tensor([0]), pcm[None])
        theirs = everything([(0,)], pcm[None])
        assert ours.shape == theirs.shape
        assert float((ours - theirs).abs().max()) < 1e-4


def test_the_public_server_forgets_and_does_not() -> None:
    config = with_chunks(sized(TEST, None), 16)
    public = PublicServer(random_checkpoint("test", 1, CPU, torch.float32), config)
    public.serving.plan = lambda ear, index: len(public.everything.heard) == 3
    assert [public.hear(pcm).respond for pcm in AUDIO[:3]] == [False, False, True]
    assert public.dropped == 0
    public.speak()
    assert public.dropped == 1
    assert not public.serving.busy
    public.hear(AUDIO[3])
    assert public.ear.due == 1  # of what it remembers, while all audio is still there to be encoded
    assert len(public.everything.heard) == 4


def test_what_is_counted_is_the_arithmetic_of_the_model() -> None:
    work = count_work(OMNI_3B)
    assert work.tower == pytest.approx(25.5e9, rel=0.01)
    assert work.theirs(1500) - work.theirs(1499) == work.tower
    assert 12 * 5.55e9 < work.decide < 15 * 6.2e9  # 13 tokens through 2.78 G weights, and attention over the slot
    one_token = 36_864  # bytes, both of keys and values, bfloat16
    assert slot_bytes(OMNI_3B, 2) == one_token * OMNI_3B.memory.places


@pytest.mark.parametrize("phases", PHASES)
def test_phases_are_in_order_and_the_same_again(phases: str) -> None:
    made = phases_of(10, phases)
    assert made == sorted(made) == phases_of(10, phases)
    assert len(set(made)) == (1 if phases == "together" else 10)
    assert all(0 <= phase < 0.4 for phase in made)


@pytest.mark.parametrize("size", ["compact", "3b"])
def test_after_ten_minutes_all_encoded_again_is_64_times_the_work(size: str) -> None:
    """Operations are counted in the passes themselves, on tensors without data. Ours are the same at every age."""
    config, device, chunks = PRESETS[size], torch.device("meta"), 1500
    work = count_work(config)
    tensors = {name: torch.empty(shape, device=device) for name, shape in model_shapes(config).items()}
    with device:
        everything = Everything(checkpoint_of(config, tensors))
    pcm = torch.empty(1, CHUNK_SAMPLES, device=device)
    everything.heard = [pcm[0]] * (chunks - 1)
    with FlopCounterMode(display=False) as counter:
        everything([(0,)], pcm)
    theirs = counter.get_total_flops() + work.decide
    assert theirs == work.theirs(chunks)
    assert theirs >= 64 * work.ours()
    until_now = sum(work.theirs(age) for age in range(1, chunks + 1))
    assert until_now >= 64 * chunks * work.ours()


def test_it_and_the_gpus_tests_want_torch_and_no_service() -> None:
    """As scripts/bench_gpu promises: of what else offhook needs a GPU's machine may have nothing."""
    script = (ROOT / "scripts/bench_gpu").read_text()
    files = [path for path in Path(__file__).parent.glob("test_*.py") if path != Path(__file__)]
    here = [path.stem for path in files if '("device", DEVICES)' in path.read_text()]
    assert len(here) > 3
    named = re.search(r"test_\{([a-z_,]+)\}\.py", script)
    assert named
    assert {f"test_{name}" for name in named[1].split(",")} == set(here)
    absent = ["msgspec", "sqlalchemy", "redis", "alembic", "litestar", "websockets", "onnxruntime", "sherpa_onnx"]
    tests = [f"tests.model_worker.interaction.{name}" for name in here]
    wanted = ["benchmarks.engine", "benchmarks.engine_summary", *tests]
    code = f"import sys; sys.modules.update(dict.fromkeys({absent}))\nimport {', '.join(wanted)}"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_what_is_compiled_after_the_model_was_built_is_no_figure() -> None:
    built = compiled()
    nothing_compiled_since(built)
    torch.compile(lambda x: x + 1, backend="eager")(torch.zeros(1))
    with pytest.raises(SystemExit, match="torch compiled 1 graphs after"):
        nothing_compiled_since(built)
