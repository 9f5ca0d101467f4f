"""What scripts/bench_gpu found, in a few lines: `python -m benchmarks.engine_summary DIR`, a JSON file a step."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any


def lines(step: str, found: dict[str, Any]) -> Iterator[str]:
    """Of one file that `benchmarks.engine --json` wrote."""
    for window in found["windows"]:
        if ramp := window.get("ramp"):
            held = [one for one in ramp["steps"] if one["calls"] <= ramp["holds"]]
            for one in [*held[-1:], *(one for one in ramp["steps"] if one["calls"] > ramp["holds"])]:
                what = "holds" if one["calls"] <= ramp["holds"] else "does not hold"
                yield (
                    f"{step}: {what} {one['calls']} calls: p50 {one['p50_ms']:.1f}, p99 {one['p99_ms']:.1f}, longest "
                    f"{one['max_ms']:.1f} ms; {one['missed']} of {one['chunks']} late; "
                    f"{one['tokens_per_s']:.0f} tokens/s; "
                    f"busy {one['busy']:.2f}; {ramp['slot_bytes'] / 2**20:.0f} MiB a call, {one['memory_mb']:,.0f} MB"
                )
        if base := window.get("baseline"):
            for age in base["ages"][-1:]:
                yield (
                    f"{step}: a call {age['age_s']} s old: ours {age['ours_ms']:.1f} ms a Chunk, all encoded again "
                    f"{age['theirs_ms']:,.1f}: {age['times']:.0f} times; work counted {age['work']:.0f} times"
                )
        if age := window.get("age"):
            pairs = (f"{what} {age[what]['ratio']:.3f}" for what in ("silent", "speaking"))
            yield f"{step}: minute {age['minutes']} beside minute 1: {', '.join(pairs)}"


def main(directory: Path) -> None:
    files = sorted(directory.glob("*.json"))
    if not files:
        raise SystemExit(f"{directory} has no figures")
    for number, file in enumerate(files):
        found = json.loads(file.read_text(encoding="utf-8"))
        if not number:
            print(f"{found['machine']}, {found['dtype']}; {found['model']}")
        print("\n".join(lines(file.stem, found)))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
