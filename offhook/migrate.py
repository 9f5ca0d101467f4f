"""`python -m offhook.migrate`: bring the database of OFFHOOK_DATABASE_URL to the newest revision."""

from __future__ import annotations

import sys
from pathlib import Path

from alembic import command
from alembic.config import Config

from calls.settings import Settings


def main() -> int:
    settings = Settings()
    if not settings.database_url:
        print("no database: set OFFHOOK_DATABASE_URL", file=sys.stderr)
        return 2
    config = Config()
    # migrations/ lies beside this package, in the repository as in an installation.
    config.set_main_option("script_location", str(Path(__file__).resolve().parents[1] / "migrations"))
    config.set_main_option("sqlalchemy.url", settings.database_url.replace("%", "%%"))
    command.upgrade(config, "head")
    return 0


if __name__ == "__main__":
    sys.exit(main())
