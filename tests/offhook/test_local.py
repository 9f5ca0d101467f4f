from __future__ import annotations

import os
import stat
from dataclasses import replace
from pathlib import Path

import pytest

from calls.errors import SettingsError
from offhook import local
from offhook.secrets import load_or_make


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


def running(home: Path) -> local.Running:
    return local.Running("http://127.0.0.1:8000", "pass", os.getpid(), str(home / "data"), "127.0.0.1", 5060)


def test_commands_find_the_local_service_and_lose_it_when_it_stops(home: Path) -> None:
    local.announce(running(home))
    assert local.find() == running(home)
    assert stat.S_IMODE((home / ".cache/offhook/running.json").stat().st_mode) == 0o600
    local.withdraw(running(home))
    with pytest.raises(local.NotRunning, match="offhook up"):
        local.find()


def test_a_service_that_died_without_saying_so_is_not_found(home: Path) -> None:
    local.announce(replace(running(home), pid=2**22 + 1))
    with pytest.raises(local.NotRunning):
        local.find()


def test_a_service_elsewhere_needs_its_password(home: Path) -> None:
    with pytest.raises(local.NotRunning, match="OFFHOOK_PASSWORD"):
        local.find(url="https://elsewhere")
    assert local.find(url="https://elsewhere/", password="x") == local.Running("https://elsewhere", "x")


def test_secrets_are_made_once_and_for_the_owner_alone(tmp_path: Path) -> None:
    first = load_or_make(tmp_path / "data")
    again = load_or_make(tmp_path / "data")
    assert first.first_start
    assert not again.first_start
    assert first.password == again.password
    assert stat.S_IMODE((tmp_path / "data/secrets.json").stat().st_mode) == 0o600


def test_a_damaged_secrets_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "secrets.json").write_text("{")
    with pytest.raises(SettingsError, match=r"secrets\.json is damaged"):
        load_or_make(tmp_path)
