"""Fetching files with a checksum.

``http``, ``https`` and ``file`` addresses.  A file appears under its name only
when it is complete and its checksum is right.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO

from graphflow.errors import GraphFlowError

_TIMEOUT = 30.0  # seconds without a byte
_CHUNK = 1 << 16


_HASHES = {32: "md5", 64: "sha256"}


def hash_of(path: Path, kind: str = "sha256") -> str:
    """The hash of a file, in hexadecimal."""
    digest = hashlib.new(kind, usedforsecurity=False)
    with open(path, "rb") as stream:
        while chunk := stream.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def download(
    urls: Sequence[str],
    path: Path,
    checksum: str | None,
    limit: int,
    watch: Callable[[int, int | None], None] | None = None,
) -> None:
    """Fetch ``path`` from the first of ``urls`` that delivers the right file.

    ``checksum``: an MD5 (32 digits), or the beginning of a SHA-256 (any other
    number of digits); None takes what comes.  ``limit``: the most bytes it may
    have.  ``watch(done, total)`` is told how far it is.  Raises
    :class:`GraphFlowError` with every address tried, why it failed, and what to
    do by hand.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    reasons = []
    for url in urls:
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=path.name, suffix=".part")
        part = Path(name)
        try:
            with os.fdopen(handle, "wb") as stream:
                _fetch(url, stream, limit, watch)
            problem = mismatch(part, checksum)
            if problem is None:
                os.chmod(part, 0o644)
                part.replace(path)
                return
            reasons.append(f"{url}: {problem}")
        except (OSError, urllib.error.URLError, ValueError) as error:
            reasons.append(f"{url}: {error}")
        finally:
            part.unlink(missing_ok=True)
    tried = "\n  ".join(reasons)
    raise GraphFlowError(
        f"could not download {path.name}:\n  {tried}\n"
        f"Without a network, put the file into {path.parent} by hand."
    )


def mismatch(path: Path, checksum: str | None) -> str | None:
    """What is wrong with the checksum of a file; None if it is right (or none is asked for)."""
    if checksum is None:
        return None
    found = hash_of(path, _HASHES.get(len(checksum), "sha256"))
    if found.startswith(checksum.lower()):
        return None
    return f"wrong checksum {found} (expected {checksum})"


def _fetch(
    url: str, stream: IO[bytes], limit: int, watch: Callable[[int, int | None], None] | None
) -> None:
    scheme = urllib.parse.urlsplit(url).scheme
    if scheme not in ("http", "https", "file"):
        raise ValueError(f"unknown kind of address {url!r}")
    request = urllib.request.Request(url, headers={"User-Agent": "graphflow"})
    total = 0
    with urllib.request.urlopen(request, timeout=_TIMEOUT) as response:
        length = response.headers.get("Content-Length")
        promised = int(length) if length and length.isdigit() else None
        while chunk := response.read(_CHUNK):
            total += len(chunk)
            if total > limit:
                raise ValueError(f"more than {limit:,} bytes")
            stream.write(chunk)
            if watch is not None:
                watch(total, promised)
