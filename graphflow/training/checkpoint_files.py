"""A checkpoint on disk: a folder with one file a rank and a manifest, there whole or not at all.

Every rank writes its shard, in the safetensors format, into a folder with a temporary name, and
beside it a note of its size and checksum.  Rank 0 waits for all notes, joins them to the manifest,
and gives the folder its name; until then nobody takes it for a checkpoint.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

from graphflow.errors import GraphFlowError
from graphflow.records import dataclass
from graphflow.serialization import safetensors
from graphflow.serialization.atomic import replacing, sync_folder
from graphflow.serialization.safetensors import Array

VERSION = 1
"""Of the format: raised when a reader of the version before could not read what is written."""
FORMAT = "graphflow checkpoint"
MANIFEST = "manifest.json"
PART = ".part"
OWN = "own:"
"""Begins the names of a rank's own arrays in its shard; the others are parts of the whole."""
_NAMED = re.compile(r"step-(\d{8,})")
_LOOK_SECONDS = 0.005
_CHUNK = 1 << 20


class DamagedCheckpoint(GraphFlowError):
    """A checkpoint that is not what was written."""


@dataclass(frozen=True)
class Manifest:
    """What is known of a checkpoint without reading its tensors."""

    path: Path
    step: int
    metrics: dict[str, float]
    classes: dict[str, str]
    structure: str
    files: list[dict[str, Any]]


def folder_name(step: int) -> str:
    """The name of the checkpoint of ``step``."""
    return f"step-{step:08d}"


def listed(folder: Path) -> dict[int, Path]:
    """Every checkpoint in ``folder`` by step, the oldest first."""
    found = {}
    for path in folder.iterdir() if folder.is_dir() else ():
        match = _NAMED.fullmatch(path.name)
        if match:
            found[int(match[1])] = path
    return dict(sorted(found.items()))


def shard_name(rank: int, size: int) -> str:
    """The name of a rank's file."""
    return f"rank-{rank}-of-{size}.safetensors"


# ---- writing ------------------------------------------------------------------------------


class _Counting:
    """A stream that counts and digests what passes through."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream, self.size, self.digest = stream, 0, hashlib.sha256()

    def write(self, data: Any) -> None:
        self.size += len(data)
        self.digest.update(data)
        self._stream.write(data)


def write_shard(
    folder: Path, rank: int, size: int, arrays: Mapping[str, Array], own: str
) -> None:  # fmt: skip
    """Write a rank's arrays and the structure of its own ones, then the note about them."""
    folder.mkdir(exist_ok=True)
    name = shard_name(rank, size)
    with open(folder / name, "wb") as file:
        counting: Any = _Counting(file)
        safetensors.write(counting, arrays, {"own": own})
        file.flush()
        os.fsync(file.fileno())
    note = {
        "name": name, "bytes": counting.size, "sha256": counting.digest.hexdigest(),
        "arrays": [n for n in arrays if not n.startswith(OWN)],
    }  # fmt: skip
    with replacing(folder / f"{name}.json") as file:
        file.write(json.dumps(note).encode())


def _sizes(folder: Path) -> list[tuple[str, int]]:
    """Names and sizes of the files in ``folder``; some are being renamed meanwhile."""
    found = []
    with os.scandir(folder) as entries:
        for entry in entries:
            with contextlib.suppress(FileNotFoundError):
                if entry.is_file():
                    found.append((entry.name, entry.stat().st_size))
    return sorted(found)


def gather_notes(folder: Path, size: int, patience: float) -> list[dict[str, Any]]:
    """The notes of all ranks; an error once nothing has moved for ``patience`` seconds."""
    names = [shard_name(rank, size) for rank in range(size)]
    found: dict[str, dict[str, Any]] = {}
    seen, moved = "", time.monotonic()
    while True:
        for name in names:
            if name not in found:
                with contextlib.suppress(FileNotFoundError):
                    found[name] = json.loads((folder / f"{name}.json").read_text())
        if len(found) == size:
            return [found[name] for name in names]
        now = str(_sizes(folder))
        if now != seen:
            seen, moved = now, time.monotonic()
        elif time.monotonic() - moved > patience:
            late = [str(rank) for rank, name in enumerate(names) if name not in found]
            ranks = f"rank {late[0]} has" if len(late) == 1 else f"ranks {', '.join(late)} have"
            raise GraphFlowError(
                f"{ranks} not written a part of the checkpoint for {patience:g} s; every rank "
                "must save the same steps, into a folder that all of them share"
            )
        time.sleep(_LOOK_SECONDS)


def publish(
    part: Path, target: Path, manifest: Mapping[str, Any], notes: list[dict[str, Any]],
    names: set[str],
) -> None:  # fmt: skip
    """Write the manifest and give the folder its name; ``names``: all arrays there must be."""
    written = [name for note in notes for name in note.pop("arrays")]
    if len(written) != len(names) or set(written) != names:
        odd = sorted(names.symmetric_difference(written))[:3]
        raise GraphFlowError(f"the ranks have different states to save; see {', '.join(odd)}")
    content = {"format": FORMAT, "version": VERSION, **manifest, "files": notes}
    text = {"sha256": _digest(content), "manifest": content}
    for note in notes:
        (part / f"{note['name']}.json").unlink()
    with open(part / MANIFEST, "w") as file:
        json.dump(text, file, ensure_ascii=False)
        file.flush()
        os.fsync(file.fileno())
    sync_folder(part)
    old = part.with_name(part.name.removesuffix(PART) + f".old{PART}")
    with contextlib.suppress(FileNotFoundError):
        os.rename(target, old)
    os.rename(part, target)
    sync_folder(target.parent)
    shutil.rmtree(old, ignore_errors=True)


def remove(path: Path) -> None:
    """Remove a checkpoint: it loses its name first, so that no half of it is seen."""
    gone = path.with_name(f".{path.name}.gone{PART}")
    shutil.rmtree(gone, ignore_errors=True)
    os.rename(path, gone)
    shutil.rmtree(gone, ignore_errors=True)


def forget_parts(folder: Path) -> None:
    """Remove what killed jobs left behind."""
    for path in folder.glob(f".step-*{PART}"):
        shutil.rmtree(path, ignore_errors=True)


def _digest(content: Mapping[str, Any]) -> str:
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


# ---- reading ------------------------------------------------------------------------------


def read_manifest(path: Path) -> Manifest:
    """The manifest of the checkpoint ``path``; an error says what is wrong with it."""
    try:
        text = json.loads((path / MANIFEST).read_bytes())
        content, digest = text["manifest"], text["sha256"]
        kind, version = content["format"], content["version"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        what = f"its {MANIFEST} cannot be read ({type(error).__name__}: {error})"
        raise DamagedCheckpoint(f"{path}: {what}") from None
    if kind == FORMAT and isinstance(version, int) and version > VERSION:
        raise GraphFlowError(
            f"{path}: written in version {version} of the format; this GraphFlow reads versions "
            f"up to {VERSION}: update it"
        )
    if kind != FORMAT or digest != _digest(content):
        raise DamagedCheckpoint(f"{path}: its {MANIFEST} does not match its own checksum")
    kept = ("step", "metrics", "classes", "structure", "files")
    return Manifest(path, **{name: content[name] for name in kept})


def verify(manifest: Manifest) -> None:
    """Hold every file against its checksum."""
    for entry in manifest.files:
        file = manifest.path / entry["name"]
        digest = hashlib.sha256()
        try:
            size = file.stat().st_size
            if size != entry["bytes"]:
                what = f"has {size:,} bytes instead of {entry['bytes']:,}"
                raise DamagedCheckpoint(f"{manifest.path}: {entry['name']} {what}")
            with open(file, "rb") as stream:
                while chunk := stream.read(_CHUNK):
                    digest.update(chunk)
        except OSError as error:
            what = error.strerror or str(error)
            raise DamagedCheckpoint(f"{manifest.path}: {entry['name']}: {what}") from None
        if digest.hexdigest() != entry["sha256"]:
            what = f"{entry['name']} does not match its checksum"
            raise DamagedCheckpoint(f"{manifest.path}: {what}")


def read_shards(manifest: Manifest, rank: int) -> tuple[dict[str, Array], dict[str, Array], str]:
    """All arrays of the whole, those of ``rank``'s own, and the structure of the latter.

    A rank that was not there when the checkpoint was made takes rank 0's.
    """
    whole: dict[str, Array] = {}
    own: dict[str, Array] = {}
    structure = ""
    mine = rank if rank < len(manifest.files) else 0
    for number, entry in enumerate(manifest.files):
        file = manifest.path / entry["name"]
        with open(file, "rb") as stream:
            arrays, metadata = safetensors.read(stream, str(file))
        for name, array in arrays.items():
            if not name.startswith(OWN):
                whole[name] = array
            elif number == mine:
                own[name.removeprefix(OWN)] = array
        if number == mine:
            structure = metadata["own"]
    return whole, own, structure
