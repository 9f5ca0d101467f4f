"""Recordings out of packages: a small package made here, and an apt-get that is a script beside it."""

from __future__ import annotations

import gzip
import hashlib
import io
import lzma
import shutil
import subprocess
import tarfile
from pathlib import Path

import numpy as np
import pytest

from calls.settings import Settings
from soundflow import debian
from soundflow.clips import Rules, describe
from soundflow.commands import fetch
from soundflow.debian import CORPORA, MUSIC, SOUNDS, SPEECH, bring, command, recordings
from soundflow.errors import SoundflowError
from soundflow.policy import sound
from soundflow.sources import SOURCES, database
from soundflow.streamaudio import write_wav

ROOT = Path(__file__).resolve().parents[2]
FILES = {
    "rain/pond~rain-1.wav": "usr/share/pond/rain 1.wav",
    "horse/pond~neigh.wav": "usr/share/pond/neigh.wav",
    "music/pond-theme~theme.wav": "usr/share/pond/theme.wav",
    "digits/3_pondus_0.wav": "usr/share/pond/3.wav",
    "speech/pond-fr~3-fr.wav": "usr/share/pond/3_fr.wav",
}
HEAD = "file\tclass\tpackage\tversion\tpath\tseconds\trate\tsha256\tlicence"
APT = """#!/bin/sh
# As apt-get download does it: `--print-uris` says 'URL' FILE BYTES HASH; version 2:1.0-1 of pond may be gone.
for asked; do :; done
case "$asked" in pond=*) [ -e "$SHELF/gone" ] && { echo "E: Version for 'pond' was not found" >&2; exit 100; };; esac
case "$asked" in pond|pond=2:1.0-1) ;; *) echo "E: Unable to locate package" >&2; exit 100;; esac
for deb in "$SHELF"/*.deb; do :; done
if [ "$1" = --print-uris ]; then echo "'http://somewhere/pond.deb' pond.deb $(wc -c < "$deb") SHA256:0"
elif [ -e "$SHELF/down" ]; then echo "E: Failed to fetch" >&2; exit 100
else echo "$asked" >> "$SHELF/asked"; cp "$deb" .; fi
"""


@pytest.fixture
def contents(tmp_path: Path) -> dict[str, bytes]:
    """Path in the package -> a tone of its own, and what nobody wants."""
    made = {"usr/share/doc/pond/copyright": b"GPL", "usr/share/pond/other.wav": b"RIFF"}
    for number, path in enumerate(FILES.values()):
        samples = 8_000 * np.sin(2 * np.pi * (300 + 50 * number) * np.arange(16_000) / 16_000)
        write_wav(tmp_path / "tone.wav", samples.astype(np.int16))
        made[path] = (tmp_path / "tone.wav").read_bytes()
    return made


@pytest.fixture
def table(tmp_path: Path, contents: dict[str, bytes]) -> Path:
    rows = [
        "\t".join((file, file.split("/")[0], "pond", "2:1.0-1", path, "1.0", "16000", sha256(contents[path]), "CC0"))
        for file, path in FILES.items()
    ]
    path = tmp_path / "table.tsv"
    path.write_text("\n".join([HEAD, *rows]) + "\n")
    return path


@pytest.fixture
def shelf(tmp_path: Path, contents: dict[str, bytes]) -> Path:
    """A folder with the package."""
    folder = tmp_path / "shelf"
    folder.mkdir()
    write_deb(folder / "pond_2%3a1.0-1_all.deb", packed(contents), "xz")
    return folder


@pytest.fixture
def apt(tmp_path: Path, shelf: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An apt-get that fetches from the shelf."""
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "apt-get").write_text(APT)
    (folder / "apt-get").chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    monkeypatch.setenv("SHELF", str(shelf))
    return shelf


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def packed(contents: dict[str, bytes]) -> bytes:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as tar:
        for path, data in contents.items():
            member = tarfile.TarInfo(f"./{path}")
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return made.getvalue()


def write_deb(path: Path, tar: bytes, kind: str) -> None:
    """As deb(5) has it: debian-binary, control.tar (here of an odd length), data.tar."""
    data = lzma.compress(tar) if kind == "xz" else gzip.compress(tar) if kind == "gz" else tar
    members = (
        (b"debian-binary", b"2.0\n"),
        (b"control.tar.xz", b"odd"),
        (f"data.tar.{kind}".strip(".").encode(), data),
    )
    with path.open("wb") as file:
        file.write(b"!<arch>\n")
        for name, content in members:
            file.write(b"%-16s%-12d%-6d%-6d%-8s%-10d`\n" % (name, 0, 0, 0, b"100644", len(content)))
            file.write(content + b"\n" * (len(content) % 2))


def brought(home: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(home)): path.read_bytes()
        for path in home.rglob("*")
        if path.is_file() and path.suffix == ".wav"
    }


def test_the_table_can_be_trusted() -> None:
    rows = recordings()
    assert {row.corpus for row in rows} == set(CORPORA)
    assert len({row.file.rsplit(".", 1)[0] for row in rows}) == len({row.sha256 for row in rows}) == len(rows)
    assert all(len(row.sha256) == 64 and row.licence and row.version for row in rows)
    for row in rows:
        assert not Path(row.file).is_absolute()
        assert ".." not in row.file
        assert not row.path.startswith(("/", "."))
    assert not {row.file.split("/")[0] for row in rows} & {"thunderstorm", "fireworks", "hand_saw", "hammering"}
    assert sum(row.corpus == SPEECH for row in rows) == 245
    assert all(row.file.endswith("~") == ("*" in row.path) for row in rows)


def test_the_notice_names_every_package() -> None:
    notice = (ROOT / "NOTICE").read_text()
    for package, version in {(row.package, row.version) for row in recordings()}:
        assert any(line.split()[:2] == [package, version] for line in notice.splitlines()), package


def test_a_row_of_many_files(tmp_path: Path, shelf: Path, contents: dict[str, bytes]) -> None:
    """Whatever their order in the package; what is silent is left out; one that is torn is taken out again."""
    tone, other = contents["usr/share/pond/3.wav"], contents["usr/share/pond/neigh.wav"]
    talk = {"usr/talk/b/1.wav": other, "usr/talk/a/1.wav": tone, "usr/talk/hello.wav": tone + b"more"}
    aside = {"usr/talk/silence/1.wav": other, "usr/talk/beep.wav": other, "usr/talk/a/note.txt": b"x"}
    digest = sha256(b"".join(talk[path] for path in sorted(talk)))
    row = "\t".join(("speech/pond-talk~", "speech", "pond", "2:1.0-1", "usr/talk/*.wav", "", "", digest, "CC0"))
    table = tmp_path / "many.tsv"
    table.write_text(f"{HEAD}\n{row}\n")
    deb, home = shelf / "pond_2%3a1.0-1_all.deb", tmp_path / "home"
    for wrong in ({**talk, "usr/talk/b/1.wav": b"another"}, {**talk, "usr/talk/new.wav": tone}):
        write_deb(deb, packed({**contents, **wrong, **aside}), "xz")
        with pytest.raises(SoundflowError, match="another version"):
            bring([SPEECH], home, shelf, table=table)
        assert not brought(home)
    write_deb(deb, packed({**contents, **talk, **aside}), "xz")
    torn = home / f".{SPEECH}.part" / "speech" / "pond-talk~0001-1.wav"
    torn.parent.mkdir(parents=True)
    torn.write_bytes(b"torn")
    bring([SPEECH], home, shelf, table=table)
    names = ("0001-1.wav", "0002-1.wav", "0003-hello.wav")
    assert brought(home) == {
        f"{SPEECH}/speech/pond-talk~{name}": talk[path] for name, path in zip(names, sorted(talk), strict=True)
    }
    assert {clip.source for clip in database((SPEECH,), home).clips} == {"pond-talk"}
    (home / SPEECH).rename(home / f".{SPEECH}.part")
    deb.unlink()
    bring([SPEECH], home, shelf, table=table)  # all is taken out: no package is asked for
    assert len(brought(home)) == 3


def test_people_who_talk_are_in_several_splits() -> None:
    """Most of them to learn from; nobody in two."""
    rows = [row for row in recordings() if "*" in row.path]
    clips = [describe(Path("home") / f"{row.file}1.wav", Path("home"), "speech", "", Rules()) for row in rows]
    splits = {clip.source: clip.split for clip in clips if clip}
    assert [source for source, split in splits.items() if split != "train"] == ["asterisk-ru"]
    assert len(splits) == len(rows) == 5


@pytest.mark.parametrize("kind", ["xz", "gz", ""])
def test_a_package_is_read(
    kind: str, tmp_path: Path, shelf: Path, table: Path, contents: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "")  # no other program is needed
    write_deb(shelf / "pond_2%3a1.0-1_all.deb", packed(contents), kind)
    told: list[tuple[int, int, str]] = []
    home = tmp_path / "home"
    bring(CORPORA, home, shelf, lambda *now: told.append(now), table)
    assert brought(home) == {
        f"{SOUNDS}/rain/pond~rain-1.wav": contents["usr/share/pond/rain 1.wav"],
        f"{SOUNDS}/horse/pond~neigh.wav": contents["usr/share/pond/neigh.wav"],
        f"{MUSIC}/music/pond-theme~theme.wav": contents["usr/share/pond/theme.wav"],
        f"{SPEECH}/digits/3_pondus_0.wav": contents["usr/share/pond/3.wav"],
        f"{SPEECH}/speech/pond-fr~3-fr.wav": contents["usr/share/pond/3_fr.wav"],
    }
    assert "music/pond-theme~theme.wav\tpond\t2:1.0-1\tCC0" in (home / MUSIC / "debian.tsv").read_text()
    assert not list(home.glob(".*"))
    assert (shelf / "pond_2%3a1.0-1_all.deb").is_file()
    assert told
    assert {what for *_, what in told} == {"pond=2:1.0-1"}


@pytest.mark.skipif(not shutil.which("dpkg-deb"), reason="no dpkg-deb")
def test_a_package_packed_with_zstd(
    tmp_path: Path, shelf: Path, table: Path, contents: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    tree = tmp_path / "tree"
    control = (
        b"Package: pond\nVersion: 2:1.0-1\nArchitecture: all\nMaintainer: n <n@example.org>\nDescription: a pond\n"
    )
    for path, data in {"DEBIAN/control": control, **contents}.items():
        (tree / path).parent.mkdir(parents=True, exist_ok=True)
        (tree / path).write_bytes(data)
    deb = shelf / "pond_2%3a1.0-1_all.deb"
    made = subprocess.run(["dpkg-deb", "-Zzstd", "--root-owner-group", "-b", tree, deb], capture_output=True, text=True)
    if made.returncode:
        pytest.skip(made.stderr)
    assert b"data.tar.zst" in deb.read_bytes()
    with monkeypatch.context() as without:
        without.setenv("PATH", "")
        with pytest.raises(SoundflowError, match="dpkg-deb is needed"):
            bring([MUSIC], tmp_path / "home", shelf, table=table)
    bring([MUSIC], tmp_path / "home", shelf, table=table)
    assert list(brought(tmp_path / "home")) == [f"{MUSIC}/music/pond-theme~theme.wav"]


def test_whole_or_not_at_all_and_on_from_there(
    tmp_path: Path, shelf: Path, table: Path, contents: dict[str, bytes]
) -> None:
    """One recording is not what it was: nothing is there; with the right package, the rest is not taken out again."""
    home = tmp_path / "home"
    good = (shelf / "pond_2%3a1.0-1_all.deb").read_bytes()
    other = {**contents, "usr/share/pond/neigh.wav": b"another neigh"}
    write_deb(shelf / "pond_2%3a1.0-1_all.deb", packed(other), "xz")
    with pytest.raises(SoundflowError, match=r"1 of 5 .*neigh\.wav.*apt-get download pond=2:1\.0-1; then: --from"):
        bring(CORPORA, home, shelf, table=table)
    assert not [name for name in CORPORA if (home / name).exists()]
    with pytest.raises(SoundflowError, match=f"offhook soundflow fetch {SOUNDS} {MUSIC}"):
        database((SOUNDS, MUSIC), home)
    taken = home / f".{SOUNDS}.part" / "rain" / "pond~rain-1.wav"
    inode = taken.stat().st_ino
    (home / f".{MUSIC}.part" / "music" / "pond-theme~theme.wav").write_bytes(b"torn")
    (shelf / "pond_2%3a1.0-1_all.deb").write_bytes(good)
    bring(CORPORA, home, shelf, table=table)
    assert (home / SOUNDS / "rain" / "pond~rain-1.wav").stat().st_ino == inode
    assert set(brought(home).values()) == {contents[path] for path in FILES.values()}
    bring(CORPORA, home, tmp_path / "nowhere", table=table)  # all is there: nothing is asked for


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"PK nonsense", "does not begin as one"),
        (b"!<arch>\n", "no data.tar"),
        (b"!<arch>\n" + b"x" * 60, "can be read"),
        ("rar", "data.tar.rar is in it"),
        ("torn", "can be read"),
    ],
)
def test_what_is_no_package(tmp_path: Path, shelf: Path, table: Path, content: bytes | str, said: str) -> None:
    deb = shelf / "pond_2%3a1.0-1_all.deb"
    if content == "torn":
        deb.write_bytes(deb.read_bytes()[: deb.stat().st_size // 3])
    elif isinstance(content, str):
        write_deb(deb, b"Rar!", content)
    else:
        deb.write_bytes(content)
    with pytest.raises(SoundflowError, match=said) as error:
        bring([SOUNDS], tmp_path / "home", shelf, table=table)
    assert deb.name in str(error.value)


def test_a_folder_that_lacks_packages(tmp_path: Path, table: Path) -> None:
    with pytest.raises(SoundflowError, match=r"lacks packages .* apt-get download pond=2:1\.0-1"):
        bring(CORPORA, tmp_path / "home", tmp_path, table=table)


def test_apt_get_is_asked_once_for_all_corpora(tmp_path: Path, apt: Path, table: Path) -> None:
    told: list[tuple[int, int, str]] = []
    bring(CORPORA, tmp_path / "home", None, lambda *now: told.append(now), table)
    assert len(brought(tmp_path / "home")) == 5
    assert (apt / "asked").read_text() == "pond=2:1.0-1\n"
    assert not list((tmp_path / "home").glob(".*"))
    assert told


def test_a_version_that_is_gone(tmp_path: Path, apt: Path, table: Path, contents: dict[str, bytes]) -> None:
    """What is there is taken if its recordings are the same, and only then."""
    (apt / "gone").touch()
    bring([MUSIC], tmp_path / "home", table=table)
    assert (apt / "asked").read_text() == "pond\n"
    write_deb(apt / "pond_2%3a1.0-1_all.deb", packed({**contents, "usr/share/pond/neigh.wav": b"other"}), "xz")
    with pytest.raises(SoundflowError, match=r"another version: .*apt-get download pond=2:1\.0-1; then: --from"):
        bring([SOUNDS], tmp_path / "home", table=table)
    assert not (tmp_path / "home" / SOUNDS).exists()


def test_apt_get_cannot(tmp_path: Path, apt: Path, table: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    by_hand = r"apt-get download pond=2:1\.0-1; then: --from"
    (apt / "down").touch()
    with pytest.raises(SoundflowError, match="Failed to fetch"):
        bring([SOUNDS], tmp_path / "home", table=table)
    assert not list((tmp_path / "home").glob("*"))
    table.write_text(table.read_text().replace("\tpond\t", "\tlake\t"))
    with pytest.raises(SoundflowError, match=r"Unable to locate package.*apt-get download lake=2:1\.0-1"):
        bring([SOUNDS], tmp_path / "home", table=table)
    table.write_text(table.read_text().replace("\tlake\t", "\tpond\t"))
    monkeypatch.setenv("PATH", "")
    with pytest.raises(SoundflowError, match=f"no apt-get here.*{by_hand}"):
        bring([SOUNDS], tmp_path / "home", table=table)


def test_the_command_and_what_a_configuration_gets(
    tmp_path: Path, shelf: Path, table: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(debian, "recordings", lambda _: recordings(table))
    home = tmp_path / "home"
    arguments = ["--from", str(shelf), "--home", str(home)]
    assert fetch.main([*CORPORA, *arguments], Settings()) == 0
    said = capsys.readouterr().out
    assert f"{SOUNDS}: 2 recordings, 0 min" in said
    found = database(CORPORA, home).clips
    assert {(clip.group, clip.label, clip.source, clip.text) for clip in found} == {
        ("sound", "rain", "pond", ""),
        ("sound", "horse", "pond", ""),
        ("music", "music", "pond-theme", ""),
        ("digit", "3", "pondus", "three"),
        ("speech", "speech", "pond-fr", ""),
    }
    assert fetch.main([], Settings()) == 0
    assert all(name in capsys.readouterr().out for name in [MUSIC])
    with pytest.raises(SystemExit):
        fetch.main([MUSIC, "esc10", *arguments], Settings())


def test_what_is_fetched_is_of_use() -> None:
    """Every class is in the policy."""
    assert all(sound(row.file.split("/")[0]) for row in recordings() if row.corpus == SOUNDS)
    assert all(SOURCES[name].group == group for name, group in zip(CORPORA, ("sound", "music", "speech"), strict=True))
    assert command(recordings()[:1]).startswith("apt-get download flightgear-data-base=1:2020")
