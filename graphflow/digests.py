"""Digests of what is cached and compared: BLAKE2b with 32 bytes.

Python's own implementation is taken where it can be had: :mod:`hashlib` loads OpenSSL,
which takes 3 ms of every start.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hashlib import blake2b
else:
    try:
        from _blake2 import blake2b
    except ImportError:  # another Python than CPython
        from hashlib import blake2b

BYTES = 32

amendments: list[bytes] = []
"""What is changed in this process's compiler for now (laws), which its files do not tell.

What is kept from one process to the next has these in its key.
"""


def new_digest(data: bytes = b"") -> "blake2b":
    """A digest to be fed with ``update``, and read by ``digest`` or ``hexdigest``."""
    return blake2b(data, digest_size=BYTES)
