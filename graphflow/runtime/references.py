"""Operations without a kernel: their NumPy references, called between kernels."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from graphflow.codegen.schedule import HostCall
from graphflow.errors import GraphFlowError


def results_of(
    call: HostCall, operands: Sequence[Any], into: np.ndarray | None = None
) -> Iterator[tuple[int, np.ndarray]]:
    """The buffer and the value of each result; a reference that fills memory may use ``into``.

    What the reference raises is told as a :class:`GraphFlowError` of the user's line.
    """
    options = {"parts": call.parts} if call.parts else {}
    try:
        if into is None:
            with np.errstate(all="ignore"):
                value = call.function(*operands, **call.attrs, **options)
        else:  # it is in a hurry, and sees to NumPy's warnings itself
            value = call.function(*operands, **call.attrs, **options, into=into)
    except GraphFlowError:
        raise
    except Exception as error:
        where = "".join(f" ({place})" for place in call.provenance.locations[:1])
        raise GraphFlowError(f"{call.name}{where} failed: {error}") from error
    if value is into:
        return
    items = value if isinstance(value, tuple) else (value,)
    for output, item in zip((call.output, *call.more), items, strict=True):
        yield output, np.asarray(item)
