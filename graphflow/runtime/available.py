"""How much memory the machine has left, so that what cannot fit is refused before it is tried.

Linux gives out more memory than there is, and ends the process that touches it.
"""

from __future__ import annotations

from pathlib import Path

from graphflow.codegen.schedule import readable_bytes
from graphflow.errors import OutOfMemoryError

LARGE = 1 << 28
"""Bytes from which it is worth asking."""
_MEMINFO = Path("/proc/meminfo")
_GROUPS = (
    ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current", "inactive_file"),
    (
        "/sys/fs/cgroup/memory/memory.limit_in_bytes",
        "/sys/fs/cgroup/memory/memory.usage_in_bytes",
        "total_inactive_file",
    ),
)


def available_bytes() -> int | None:
    """Bytes that can still be used, swap included; ``None`` where the system does not say."""
    found = [n for n in (_of_machine(), *(_of_group(*paths) for paths in _GROUPS)) if n is not None]
    return min(found) if found else None


def _of_machine() -> int | None:
    values = _table(_MEMINFO)
    free = values.get("MemAvailable:")
    return None if free is None else 1024 * (free + values.get("SwapFree:", 0))


def _of_group(limit: str, usage: str, cached: str) -> int | None:
    """What the control group of the process (a container, say) leaves."""
    try:
        most, used = Path(limit).read_text().strip(), int(Path(usage).read_text())
        return int(most) - used + _table(Path(usage).parent / "memory.stat").get(cached, 0)
    except (OSError, ValueError):  # no group, or no limit ("max")
        return None


def _table(path: Path) -> dict[str, int]:
    try:
        rows = [line.split() for line in path.read_text().splitlines()]
    except OSError:
        return {}
    return {row[0]: int(row[1]) for row in rows if len(row) > 1 and row[1].isdigit()}


def check_available(size: int, what: str, advice: str = "") -> None:
    """:class:`OutOfMemoryError` if ``what``, of ``size`` bytes, is large and does not fit."""
    if size < LARGE:
        return
    free = available_bytes()
    if free is not None and size > free:
        raise OutOfMemoryError(
            f"{what} needs {readable_bytes(size)}, {readable_bytes(free)} of memory are "
            f"available{advice}"
        )
