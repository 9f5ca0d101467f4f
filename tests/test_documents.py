"""What the documents promise is there."""

from __future__ import annotations

import re
from pathlib import Path

import yaml

from calls.settings import Settings

ROOT = Path(__file__).resolve().parents[1]
MODULES = {"python": "-m", "celery": "-A"}


def test_every_setting_is_in_the_operations_page() -> None:
    page = (ROOT / "docs/operations.md").read_text()
    named = set(re.findall(r"`OFFHOOK_([A-Z_]+)`", page))
    for first, rest in re.findall(r"`OFFHOOK_([A-Z_]+)_URL`((?:, `_[A-Z]+`)+)", page):
        named |= {f"{first}{suffix}" for suffix in re.findall(r"`(_[A-Z]+)`", rest)}
    assert {name.upper() for name in Settings.model_fields} <= named


def test_links_in_the_documents_lead_somewhere() -> None:
    for page in (ROOT / "README.md", *(ROOT / "docs").rglob("*.md")):
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_compose_starts_modules_and_settings_that_exist() -> None:
    compose = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
    for name, service in compose["services"].items():
        command = service.get("command", [])
        if command and command[0] in MODULES:
            module = command[command.index(MODULES[command[0]]) + 1].replace(".", "/")
            assert (ROOT / f"{module}.py").exists() or (ROOT / module / "__main__.py").exists(), name
        for variable in service.get("environment", {}):
            if variable.startswith("OFFHOOK_"):
                assert variable.removeprefix("OFFHOOK_").lower() in Settings.model_fields, variable
