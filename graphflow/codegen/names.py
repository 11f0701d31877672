"""Names of kernels: what they do, and a hash of how."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

LONGEST = 60
HASH_DIGITS = 6
PLACEHOLDER = "KERNEL"
"""Stands for the kernel's name in the text that is hashed."""


def kernel_name(prefix: str, operations: Iterable[str], text: str) -> str:
    """``ew_mul_tanh_3fa2c1``: kind, operations in order of first use, hash of ``text``.

    ``text`` is the kernel module with :data:`PLACEHOLDER` for the name, so equal
    kernels have equal names.
    """
    digest = hashlib.sha256(text.encode()).hexdigest()[:HASH_DIGITS]
    name = prefix
    room = LONGEST - HASH_DIGITS - 1
    seen: set[str] = set()
    for operation in operations:
        part = operation.removeprefix("reduce_")
        if part in seen:
            continue
        seen.add(part)
        if len(name) + 1 + len(part) > room:
            break
        name += "_" + part
    return f"{name}_{digest}"
