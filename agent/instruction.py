"""`python -m agent.instruction MODE`: what a model is told of its role on such a call, as the settings and the
knowledge base are now. JSON on standard output, without the call's participants. For `offhook replay`."""

from __future__ import annotations

import argparse
import sys

import msgspec

from agent import knowledge, policy
from calls.errors import OffhookError
from calls.model import Mode
from calls.settings import Settings


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m agent.instruction", description=__doc__)
    parser.add_argument("mode", type=Mode, choices=list(Mode))
    options = parser.parse_args()
    settings = Settings()
    try:
        cards = knowledge.Knowledge(settings.knowledge or knowledge.GARAGE).cards()
    except OffhookError as error:
        print(error, file=sys.stderr)
        return 1
    told = policy.instruct(options.mode, (), cards, policy.Rules(company=settings.company))
    print(msgspec.json.encode(told).decode())
    return 0


if __name__ == "__main__":
    sys.exit(main())
