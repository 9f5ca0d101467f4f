"""`offhook soundflow train --config test|small|compact|3b FOLDER OUT`, and `--from MODEL` to tune what is trained."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

import torch

from calls.model import Mode
from calls.settings import Settings
from model_worker.catalogue import Catalogue
from soundflow import shards
from soundflow.base import SMOLLM, Weights, is_smollm
from soundflow.commands.shared import MODEL, bar, between, natural, parser, positive, share
from soundflow.errors import SoundflowError
from soundflow.features import Encoded, Encoder, fast
from soundflow.train.dry import dry_run
from soundflow.train.loop import Point
from soundflow.train.measure import Events, judge
from soundflow.train.network import EAR
from soundflow.train.picture import curve_picture
from soundflow.train.prepare import encode, read_encoded, starting, with_statistics
from soundflow.train.processes import Processes, processes
from soundflow.train.run import BESIDE, curve, run, save
from soundflow.train.stages import PLANS, Plan, tuning
from soundflow.train.start import fingerprint, plan_for, trained, with_ear
from soundflow.train.tune import decisions, patient, triggers, tune

BEGUN = "begun.json"  # what a run began with
_FEW = 20  # events to respond to and to be silent at, each, that a threshold can be chosen by


def main(arguments: Sequence[str], settings: Settings) -> int:
    options = _options()
    given = options.parse_args(arguments)
    if given.ear and (given.start or given.whole):
        options.error("--from tunes a whole model, its ear too: give it, with or without --whole, or --ear")
    if given.share == 1:
        options.error("--share 1 would learn nothing from FOLDER")
    if given.threads:
        torch.set_num_threads(given.threads)
    folders = [Folder.of(path) for path in (given.folder, *given.beside)]
    together = processes(int(os.environ.get("WORLD_SIZE", "1")))
    try:
        if given.dry_run:
            _dry(given, together)
        else:
            _train(given, settings, folders, together)
    finally:
        together.close()
    return 0


def _options() -> argparse.ArgumentParser:
    options = parser(
        "train",
        "Train on built shards. Killed, run it again: it goes on from its last checkpoint.",
        "--config test data/test out",
        "--config compact --ear small data/compact out  # on a machine with a GPU",
        "--from small --beside wake feedback out-tuned",
        "--config 3b --dry-run data/test out-dry",
    )
    options.add_argument("folder", type=Path, help="of the shards")
    options.add_argument("out", type=Path, help="for checkpoints, curves and the trained model")
    options.add_argument(
        "--config", default="", choices=tuple(PLANS), help="if not said: test, or what --from MODEL is"
    )
    options.add_argument(
        "--from", dest="start", default="", metavar="MODEL",
        help=f"tune this model ({MODEL}) and train none from base weights: few steps, low rate",
    )  # fmt: skip
    options.add_argument(
        "--ear", default="", metavar="MODEL",
        help=f"take the ear of this model ({MODEL}) and train only the tier that speaks of --config",
    )  # fmt: skip
    options.add_argument("--whole", action="store_true", help="with --from: all stages at their own rates and lengths")
    options.add_argument(
        "--beside", type=Path, action="append", default=[], metavar="FOLDER",
        help="more shards, mixed in so that nothing is forgotten: what the model was trained on; may be repeated",
    )  # fmt: skip
    options.add_argument("--share", type=share, default=BESIDE, help="of what is learnt from, beside (%(default)s)")
    options.add_argument(
        "--seed", type=natural, default=1, help="of what is drawn, and of weights that begin at random"
    )
    options.add_argument("--steps", type=positive, help="so many steps a stage instead of the configuration's")
    options.add_argument("--rate", type=between, help="of every stage at its highest, instead of the configuration's")
    options.add_argument(
        "--threads", type=natural, default=0, help="on a CPU; 0: all, for a model as small as test one"
    )
    options.add_argument("--every", type=positive, default=20, help="steps between two checkpoints (%(default)s)")
    options.add_argument("--dry-run", action="store_true", help="one step a stage in small shapes, on two items")
    return options


@dataclass(frozen=True, slots=True)
class Folder:
    """Shards to train on, and to measure on if there are any."""

    path: Path
    train: list[Path]
    dev: list[Path]

    @classmethod
    def of(cls, path: Path) -> Folder:
        """Raises SoundflowError if there is nothing to train on."""
        found = cls(path, sorted(path.glob("train-*.shard")), sorted(path.glob("dev-*.shard")))
        if not found.train:
            raise SoundflowError(f"{path} holds no train shards; make them: offhook soundflow build {path}")
        return found


def _train(given: argparse.Namespace, settings: Settings, folders: Sequence[Folder], together: Processes) -> None:
    catalogue = Catalogue(settings.models)
    if given.start:
        weights = trained(given.start, catalogue.path)
        plan = plan_for(weights.config, given.config, given.start)
        plan = plan if given.whole else tuning(plan)
    else:
        plan = PLANS[given.config or "test"]
        weights = starting(plan.model, catalogue, given.seed)
        if given.ear:
            weights = with_ear(weights, trained(given.ear, catalogue.path), given.ear)
            plan = replace(plan, stages=tuple(stage for stage in plan.stages if stage.tier != EAR))
    plan = _at_rate(_shortened(replace(plan, seed=given.seed), given.steps), given.rate)
    if not given.threads and plan.name == PLANS["test"].name:
        torch.set_num_threads(1)  # matrices this small: threads would only wait for each other
    if is_smollm(plan.model):
        catalogue.path(SMOLLM)  # what is stored is what differs from it: better told now than after hours
    if together.first:
        _begin(given)
        _encode(weights, folders, together)
    together.wait()
    data = read_encoded(folders[0].train)
    beside = read_encoded([path for folder in folders[1:] for path in folder.train])
    if not given.ear and (not given.start or given.whole):
        with_statistics(weights, [*data, *beside])
    tuned = run(
        plan,
        weights,
        data,
        given.out,
        beside=beside,
        share=given.share,
        processes=together,
        every=given.every,
        show=_shower(plan),
    )
    if together.first:
        _finish(given, plan, folders, weights, tuned, catalogue)
    together.wait()


def _shortened(plan: Plan, steps: int | None) -> Plan:
    if steps is None:
        return plan
    stages = (replace(s, steps=steps, warm_up=min(s.warm_up, steps // 4 + 1)) for s in plan.stages)
    return replace(plan, stages=tuple(stages))


def _at_rate(plan: Plan, rate: float | None) -> Plan:
    return plan if rate is None else replace(plan, stages=tuple(replace(s, rate=rate) for s in plan.stages))


def _begin(given: argparse.Namespace) -> None:
    """Note what a run began with. Raises SoundflowError if OUT is of a run that began otherwise."""
    told = {"from": fingerprint(given.start) if given.start else "", "share": given.share}
    told["folders"] = [str(path.resolve()) for path in (given.folder, *given.beside)]
    shards.begin(given.out / BEGUN, told | ({"ear": fingerprint(given.ear)} if given.ear else {}))


def _encode(weights: Weights, folders: Sequence[Folder], together: Processes) -> None:
    encoder = Encoder(weights.config, weights.part("tower"), fast(together.device), together.device)
    with bar("encoding") as tell:
        encode(encoder, [path for folder in folders for path in (*folder.train, *folder.dev)], tell)


def _finish(
    given: argparse.Namespace,
    plan: Plan,
    folders: Sequence[Folder],
    before: Weights,
    tuned: Weights,
    catalogue: Catalogue,
) -> None:
    """The threshold, the model, the curves."""
    measured = {folder.path: read_encoded(folder.dev) for folder in folders if folder.dev}
    everything = [one for data in measured.values() for one in data]
    threshold, answering = before.config.threshold, before.config.answering
    if everything and not given.ear and (not given.start or _enough(everything)):
        with bar("threshold") as tell:
            threshold, events = tune(tuned, everything, progress=tell)
        chunks = triggers(tuned, everything, Mode.ASSIST, threshold)
        told = f", trigger accuracy {chunks:.3f}" if chunks is not None else ""
        print(f"threshold {threshold:.2f}: on dev, balanced accuracy of events {events.balanced:.3f}{told}")
        print("(0.500 of both: always silent, or always responding)")
        if chosen := patient(tuned, everything, threshold):
            answering = chosen.threshold
            print(f"threshold {answering:.2f} on calls that are answered: {chosen}")
    elif given.ear:
        print(f"threshold {threshold:.2f}, as {given.ear} has it: it is the ear's")
    elif given.start:
        print(f"threshold {threshold:.2f} as before: there is too little in the dev shards to choose another by")
    if given.start:
        for path, data in measured.items():
            then, now = _measure(before, data, before.config.threshold), _measure(tuned, data, threshold)
            print(f"{path}: {_told(then)} before, {_told(now)} now")
    save(tuned, given.out / "model", threshold, answering, find=catalogue.path)
    try:
        curve_picture(curve(given.out, plan), given.out / "curves.png", plan.name)
    except ImportError:
        print("no picture of the curves: pip install 'offhook[soundflow]'")
    print(f"{given.out / 'model'}: OFFHOOK_MODEL=interaction:{given.out / 'model'}")


def _enough(data: Sequence[Encoded]) -> bool:
    turns = [turn.respond for one in data for turn in one.item.turns if not turn.bed]
    return min(turns.count(True), turns.count(False)) >= _FEW


def _measure(weights: Weights, data: Sequence[Encoded], threshold: float) -> Events:
    kinds = sorted({turn.kind for one in data for turn in one.item.turns})
    return judge(decisions(weights, data, Mode.ASSIST, threshold), kinds)


def _told(events: Events) -> str:
    return f"{events.hits} of {events.deserving} responded to, silent at {events.quiet} of {events.undeserving},"


def _dry(given: argparse.Namespace, together: Processes) -> None:
    plan = replace(PLANS[given.config or "test"], seed=given.seed)
    items = list(islice(shards.read(given.folder, "train"), 2))
    dry_run(plan, items, given.out, together, _shower(_shortened(plan, 1)))
    if together.first:
        print(f"{plan.name}: all {len(plan.stages)} stages took a step, in small shapes")


def _shower(plan: Plan) -> Callable[[Point], None]:
    """Prints a line a point. Of a model in two tiers the one that speaks decides nothing, so it has no accuracy."""
    speaks = {stage.name for stage in plan.stages if plan.model.ear and stage.tier != EAR}
    steps = {stage.name: stage.steps for stage in plan.stages}

    def show(point: Point) -> None:
        accuracy = "" if point.stage in speaks or point.accuracy is None else f", trigger accuracy {point.accuracy:.3f}"
        print(f"{point.stage} {point.step} of {steps[point.stage]}: loss {point.loss:.3f}{accuracy}", flush=True)

    return show
