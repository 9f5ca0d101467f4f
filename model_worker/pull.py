"""`python -m model_worker.pull`: list the catalogue, or bring weights to this machine with a progress bar.

python -m model_worker.pull                 the default models, whichever are missing
python -m model_worker.pull --list [--json]
python -m model_worker.pull kokoro          one model, or several
python -m model_worker.pull --needed        what OFFHOOK_MODEL wants, and what it builds on
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table

from calls.errors import SettingsError
from calls.settings import Settings
from model_worker.archives import CatalogueError
from model_worker.catalogue import Catalogue, ModelCorrupt, ModelMissing, ModelStatus
from model_worker.chosen import needed


def main() -> int:
    parser = argparse.ArgumentParser(prog="offhook models", description="The weights offhook uses: list, pull.")
    parser.add_argument("names", nargs="*", help="models to pull; none: the default ones that are missing")
    parser.add_argument("--needed", action="store_true", help="pull what OFFHOOK_MODEL wants instead")
    parser.add_argument("--list", action="store_true", help="list the catalogue instead")
    parser.add_argument("--json", action="store_true", help="with --list: as JSON")
    arguments = parser.parse_args()
    if arguments.needed and arguments.names:
        parser.error("--needed takes no names: OFFHOOK_MODEL says which")
    settings = Settings()
    catalogue = Catalogue(settings.models, dict(os.environ), hub_url=settings.hub_url)
    console = Console()
    try:
        if arguments.list:
            show(catalogue, console, arguments.json)
        else:
            default = [model.name for model in catalogue.default_models()]
            wanted = needed(settings, default) if arguments.needed else arguments.names or default
            pull(catalogue, wanted, console)
    except (CatalogueError, SettingsError) as error:
        print(f"offhook: {error}", file=sys.stderr)
        return 1
    return 0


def show(catalogue: Catalogue, console: Console, as_json: bool) -> None:
    statuses = catalogue.list()
    if as_json:
        print(json.dumps([_row(status) for status in statuses], indent=1))
        return
    table = Table(box=None, header_style="dim", pad_edge=False)
    for name in ("model", "for", "size", "licence", "from", "here"):
        table.add_column(name)
    for status in statuses:
        model = status.model
        here = "yes" if status.present else ("no, default" if model.default else "no")
        table.add_row(model.name, model.job, f"{model.size / 1e6:.0f} MB", model.licence, model.hub, here)
    console.print(table)


def _row(status: ModelStatus) -> dict[str, str | int | bool]:
    model = status.model
    return {
        "name": model.name,
        "job": model.job,
        "about": model.about,
        "hub": model.hub,
        "licence": model.licence,
        "size": model.size,
        "download_size": model.download_size,
        "default": model.default,
        "present": status.present,
        "path": str(status.path),
    }


def pull(catalogue: Catalogue, names: Sequence[str], console: Console) -> None:
    wanted = []
    for name in names:
        try:
            catalogue.path(name)
        except (ModelMissing, ModelCorrupt):
            wanted.append(name)
    columns = (TextColumn("{task.description:<34}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console) as progress:
        for name in wanted:
            task = progress.add_task(name, total=catalogue.model(name).download_size)

            def step(done: int, total: int, what: str, task: TaskID = task, name: str = name) -> None:
                progress.update(task, completed=done, total=total, description=f"{name}: {what}")

            catalogue.pull(name, step)
            progress.update(task, description=name)


if __name__ == "__main__":
    sys.exit(main())
