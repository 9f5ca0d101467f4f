"""Models that come with this package, and what a model builds on. Without torch: it is asked before torch is wanted."""

from __future__ import annotations

import json
from pathlib import Path

from calls.errors import SettingsError

SHIPPED = Path(__file__).with_name("weights")
"""Models that come with this package, a directory each."""


def located(directory: str) -> Path:
    """A directory, or that of a model that comes with this package. Raises SettingsError."""
    path = Path(directory).expanduser()
    if directory and not path.is_dir() and path.name == directory:
        path = SHIPPED / directory
    if not directory or not path.is_dir():
        shipped = ", ".join(sorted(own.name for own in SHIPPED.glob("*/"))) or "none"
        raise SettingsError(
            f"interaction:{directory}: there is no such directory; name a checkpoint's, or a model that comes with "
            f"offhook ({shipped})"
        )
    return path


def builds_on(directory: str) -> list[str]:
    """Names in the catalogue of what a checkpoint leaves out. None for one that is whole, or is damaged: whoever loads
    it says how. Raises SettingsError for no directory."""
    try:
        manifest = json.loads((located(directory) / "manifest.json").read_text(encoding="utf-8"))
        return sorted(str(name) for name in manifest.get("base", {}).values())
    except (OSError, ValueError, AttributeError):
        return []
