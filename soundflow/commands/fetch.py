"""`offhook soundflow fetch NAME [--from PATH]`"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from calls.settings import Settings
from soundflow import debian
from soundflow.clips import scan
from soundflow.commands.shared import add_home, bar, parser
from soundflow.sources import SOURCES, fetch, find

_ABOUT = """Bring recordings here, from their address or from a local copy, and check each.

debian-sounds, debian-music and debian-speech are files out of 31 packages of Debian 12: ask for them at once, so that a
package that carries several is fetched once. 4.4 GB of packages pass through, one at a time, each deleted after it was
read (the largest has 1.3 GB); 1.1 GB of recordings stay. That wants apt-get with bookworm's packages, or the packages
in a folder (--from). Interrupted, run it again: it goes on with the next package."""


def main(arguments: Sequence[str], settings: Settings) -> int:
    options = parser(
        "fetch",
        _ABOUT,
        "",
        "esc10 fsdd music",
        "esc10 --from Downloads/ESC-50-master.zip",
        "debian-sounds debian-music debian-speech",
    )
    add_home(options)
    options.add_argument("names", nargs="*", help=f"of {', '.join(SOURCES)}; none: list them")
    options.add_argument(
        "--from",
        dest="local",
        type=Path,
        help="a local copy of one of them: a folder or a zip file; of the debian ones, a folder of .deb files",
    )
    given = options.parse_args(arguments)
    home = given.home.expanduser()
    if not given.names:
        for source in SOURCES.values():
            here = "here" if (home / source.name).is_dir() else "not here"
            print(f"{source.name:<14}{here:<10}{source.about}\n{'':24}{source.licence}\n{'':24}{source.url}")
        return 0
    sources = [find(name) for name in dict.fromkeys(given.names)]
    packaged = [source.name for source in sources if source.name in debian.CORPORA]
    if given.local and len(sources) > 1 and len(packaged) < len(sources):
        options.error("--from is a copy of one of them")
    if packaged:
        with bar("megabytes of packages") as tell:
            debian.bring(packaged, home, given.local, tell)
    for source in sources:
        if source.name not in packaged:
            with bar(source.name) as tell:
                fetch(source, home, given.local, tell)
        with bar(f"{source.name}: recordings checked") as tell:
            clips = scan(home / source.name, source.group, licence=source.licence, progress=tell)
        for note in clips.notes:
            print(note)
        print(f"{source.name}: {len(clips.clips)} recordings, {sum(clip.seconds for clip in clips.clips) / 60:.0f} min")
    return 0
