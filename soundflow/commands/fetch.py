"""`offhook soundflow fetch NAME [--from PATH]`"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from calls.settings import Settings
from soundflow.clips import scan
from soundflow.commands.shared import bar, parser
from soundflow.sources import SOURCES, fetch, find


def main(arguments: Sequence[str], settings: Settings) -> int:
    options = parser("fetch", "Bring recordings here, from their address or from a local copy, and check each.")
    options.add_argument("names", nargs="*", help=f"of {', '.join(SOURCES)}; none: list them")
    options.add_argument("--from", dest="local", type=Path, help="a local copy of one of them: a folder or a zip file")
    given = options.parse_args(arguments)
    home = given.home.expanduser()
    if not given.names:
        for source in SOURCES.values():
            here = "here" if (home / source.name).is_dir() else "not here"
            print(f"{source.name:<8}{here:<10}{source.about}\n{'':18}{source.licence}\n{'':18}{source.url}")
        return 0
    if given.local and len(given.names) > 1:
        options.error("--from is a copy of one of them")
    for name in given.names:
        source = find(name)
        with bar(name) as tell:
            folder = fetch(source, home, given.local, tell)
        clips = scan(folder, source.group, licence=source.licence)
        for note in clips.notes:
            print(note)
        print(f"{name}: {len(clips.clips)} recordings, {sum(clip.seconds for clip in clips.clips) / 60:.0f} min")
    return 0
