"""Operations that NumPy computes on the host, where no kernel does."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from graphflow.ir.op import BatchRule, Kind, OpDef, OpTests, Sample, register
from graphflow.ir.ops import batches
from graphflow.ir.ops.matrices import Types
from graphflow.ir.ops.rules import Attrs
from graphflow.ir.types import Type


def host(
    name: str,
    summary: str,
    *,
    infer: Callable[[Types, Attrs], Type],
    reference: Callable[..., Any],
    vjp: Any,
    samples: Sequence[Sample],
    batched: BatchRule = batches.TOGETHER,
    **facts: Any,
) -> OpDef:
    """Register such an operation; ``facts`` are those of its record that few have."""
    return register(
        OpDef(
            name=name,
            kind=Kind.OPAQUE,
            summary=summary,
            infer=infer,
            reference=reference,
            vjp=vjp,
            batched=batched,
            cost=1000.0,
            tests=OpTests(dtypes=(), samples=tuple(samples)),
            **facts,
        )
    )
