"""Fetching files with a checksum."""

from __future__ import annotations

import hashlib
import os
import tempfile
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import IO

from graphflow.errors import GraphFlowError

_TIMEOUT = 30.0  # seconds without a byte
_CHUNK = 1 << 16


def md5_of(path: Path) -> str:
    """The MD5 of a file, in hexadecimal (it guards against damage, not against malice)."""
    digest = hashlib.md5(usedforsecurity=False)
    with open(path, "rb") as stream:
        while chunk := stream.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def download(urls: Sequence[str], path: Path, md5: str, limit: int) -> None:
    """Fetch ``path`` from the first of ``urls`` that delivers a file with this MD5.

    The file appears under its name only when it is complete and right.
    ``limit``: the most bytes it may have.  Raises :class:`GraphFlowError` with
    every address tried, why it failed, and what to do by hand.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    reasons = []
    for url in urls:
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=path.name, suffix=".part")
        part = Path(name)
        try:
            with os.fdopen(handle, "wb") as stream:
                _fetch(url, stream, limit)
            found = md5_of(part)
            if found == md5:
                part.replace(path)
                return
            reasons.append(f"{url}: wrong checksum {found} (expected {md5})")
        except (OSError, urllib.error.URLError, ValueError) as error:
            reasons.append(f"{url}: {error}")
        finally:
            part.unlink(missing_ok=True)
    tried = "\n  ".join(reasons)
    raise GraphFlowError(
        f"could not download {path.name}:\n  {tried}\n"
        f"Without a network, put the file into {path.parent} by hand."
    )


def _fetch(url: str, stream: IO[bytes], limit: int) -> None:
    request = urllib.request.Request(url, headers={"User-Agent": "graphflow"})
    total = 0
    with urllib.request.urlopen(request, timeout=_TIMEOUT) as response:
        while chunk := response.read(_CHUNK):
            total += len(chunk)
            if total > limit:
                raise ValueError(f"more than {limit:,} bytes")
            stream.write(chunk)
