"""`python -m soundflow COMMAND`, which `offhook soundflow COMMAND` runs too.

A command is a module of soundflow.commands with `main(arguments, settings) -> exit status`; it is imported when it is
asked for, so that building data needs no torch.
"""

from __future__ import annotations

import sys
from importlib import import_module

from calls.errors import OffhookError
from calls.settings import Settings

COMMANDS = {
    "fetch": "bring recordings here: ESC-10, spoken digits, hold music",
    "build": "make streams with labels from clips, voices and tones",
    "wake": "make streams of whole recordings, for the tier that decides",
    "feedback": "make streams of recorded calls whose hints were accepted or dismissed",
    "suite": "make a manifest of built streams, for offhook eval",
    "train": "train a model on built streams: test, small, compact or 3b",
    "mean": "one model out of several that were tuned from the same one",
    "tasks": "list the 28 sub-tasks, with a playable sample each",
    "picture": "show what preprocessing does to a clip, or a built stream",
}


OF_TRAINING = ("torch", "transformers", "tokenizers", "safetensors")
"""Packages that offhook itself does without."""


def main() -> int:
    name, *arguments = sys.argv[1:] or ["--help"]
    if name not in COMMANDS:
        if name not in ("-h", "--help"):
            print(f"offhook soundflow: no command {name!r}\n", file=sys.stderr)
        print("usage: offhook soundflow COMMAND [options]\n")
        for command, what in COMMANDS.items():
            print(f"  {command:<10}{what}")
        return 0 if name in ("-h", "--help") else 2
    try:
        status = import_module(f"soundflow.commands.{name}").main(arguments, Settings())
    except OffhookError as error:
        print(f"offhook soundflow: {error}", file=sys.stderr)
        return 1
    except ModuleNotFoundError as error:
        if error.name not in OF_TRAINING:
            raise
        print(f"offhook soundflow {name} wants {error.name}: pip install 'offhook[interaction]'", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # whoever reads us has enough
        sys.stderr.close()
        return 141
    except _of_disks() as error:  # wherever a full or broken one was not expected
        print(f"offhook soundflow {name}: {error}", file=sys.stderr)
        return 1
    return int(status)


def _of_disks() -> tuple[type[Exception], ...]:
    """OSError, and where safetensors is in use, which is of the extra that trains, what it raises instead."""
    if "safetensors" not in sys.modules:
        return (OSError,)
    from safetensors import SafetensorError

    return (OSError, SafetensorError)


if __name__ == "__main__":
    sys.exit(main())
