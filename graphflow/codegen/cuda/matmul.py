"""Whether a product is one of matrices as cuBLASLt takes them, and which.

Everything is the library's, https://docs.nvidia.com/cuda/cublas/#cublasltmatmul: matrices lie
column by column, ``D = activation(alpha * op(A) @ op(B) + beta * C + bias)`` with a bias for each
row, and a batch is a number of matrices at even distances.  A row-major result is the transposed
one, so operands may change places.  Pure functions of integers; nothing here needs a GPU.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

from graphflow.codegen.library import Operand, Plan, Seen, Term
from graphflow.records import dataclass, replace

MOST_CALLS = 64
"""A batch at distances that are not even is so many calls at most."""
COMPUTED = {
    ("f32", "f32", "f32"): "f32", ("f64", "f64", "f64"): "f64", ("f16", "f16", "f16"): "f32",
    ("f16", "f16", "f32"): "f32", ("bf16", "bf16", "bf16"): "f32", ("bf16", "bf16", "f32"): "f32",
}  # fmt: skip
"""In which type the library adds up, by the types of the operands and the result."""
TF32 = "tf32"


@dataclass(frozen=True, slots=True)
class Matrix:
    """``rows`` by ``columns`` elements, column by column: columns are ``leading`` elements
    apart, the matrices of a batch ``step``."""

    dtype: str
    rows: int
    columns: int
    leading: int
    step: int = 0


@dataclass(frozen=True, slots=True)
class Matmul:
    """``d = activation(alpha * op(a) @ op(b) + beta * c + bias)``, ``batch`` times.

    Matrices are as they lie in memory; ``transpose_a`` and ``transpose_b`` say what ``op`` is.
    ``compute`` is ``f32``, ``tf32`` or ``f64``.  The vectors of a batch's bias, of ``d``'s type,
    are ``bias_step`` apart.
    """

    compute: str
    a: Matrix
    b: Matrix
    c: Matrix
    d: Matrix
    transpose_a: bool
    transpose_b: bool
    batch: int
    alpha: float
    beta: float
    bias: bool
    bias_step: int
    activation: str

    @property
    def dtypes(self) -> tuple[str, ...]:
        """The element types of ``a``, ``b``, ``c``, ``d`` and the bias."""
        return self.a.dtype, self.b.dtype, self.c.dtype, self.d.dtype, self.d.dtype

    @property
    def depth(self) -> int:
        """How many products are added up."""
        return self.a.rows if self.transpose_a else self.a.columns

    @property
    def work(self) -> int:
        """Multiplications."""
        return self.batch * self.d.rows * self.d.columns * self.depth


def as_matmul(seen: Seen) -> Plan[Matmul] | str:
    """``seen`` as the library would be asked for it, or why it cannot be.

    The plan's places are those of ``a``, ``b``, ``c``, ``d`` and the bias; ``c`` is ``d`` where
    nothing is added.
    """
    types = seen.a.dtype, seen.b.dtype, seen.result.dtype
    if types not in COMPUTED:
        return f"{types[0]} by {types[1]} to {types[2]} is not among the library's types"
    if 0 in seen.extents:
        return "nothing is added up"
    there = [k for k, extent in enumerate(seen.extents) if extent != 1]
    depth, rows, columns = (
        [k for k in there if seen.kinds[k] == kind] or [-1] for kind in ("depth", "rows", "columns")
    )
    if len(depth) > 1:
        return "what is added up runs over several axes"
    found = []
    for row, column in product(rows, columns):
        for first, second in ((column, row), (row, column)):
            plan = _Attempt(seen, there, first, second, depth[0], first == column).plan()
            if plan is not None:
                found.append(plan)
    if not found:
        whose = "operands, the result or what is added" if seen.terms else "operands or the result"
        return f"{whose} do not lie as matrices do"
    best = max(found, key=lambda plan: (plan.asked.work, plan.asked.d.rows))
    if len(best.starts) > MOST_CALLS:
        return f"it would be {len(best.starts)} calls"
    return best


@dataclass(slots=True)
class _Attempt:
    """Axis ``first`` runs along the columns of ``d``, ``second`` across them, -1 being an axis
    of one element; what is left is batch.  ``swapped``: ``first`` is an axis of ``seen.b``."""

    seen: Seen
    there: Sequence[int]
    first: int
    second: int
    depth: int
    swapped: bool

    def plan(self) -> Plan[Matmul] | None:
        """The product so, if the library takes it."""
        seen, own = self.seen, (self.first, self.second, self.depth)
        left, right = (seen.b, seen.a) if self.swapped else (seen.a, seen.b)
        d = self._lies(seen.result, self.first, self.second)
        a = self._either(left, self.first, self.depth)
        b = self._either(right, self.depth, self.second)
        split = self._split()
        if d is None or a is None or b is None or split is None:
            return None
        c, bias = split
        batch = [k for k in self.there if k not in own]
        one = max(batch, key=self._extent, default=-1)
        steps = [self._stride(x, one) for x in (left, right, seen.result)]
        if min(steps) < 0 or (one >= 0 and steps[2] == 0):
            return None
        d = replace(d, step=steps[2])
        added = d if c is None else self._added(c.operand, one)
        if added is None:
            return None
        compute = COMPUTED[left.dtype, right.dtype, seen.result.dtype]
        matmul = Matmul(
            compute=TF32 if seen.numerics.matmul_tf32 and left.dtype == "f32" else compute,
            a=replace(a[0], step=steps[0]), b=replace(b[0], step=steps[1]),
            c=added, d=d,
            transpose_a=a[1], transpose_b=b[1], batch=self._extent(one),
            alpha=seen.alpha, beta=0.0 if c is None else c.factor,
            bias=bias is not None, bias_step=0 if bias is None else self._stride(bias.operand, one),
            activation=seen.activation,
        )  # fmt: skip
        operands = [
            left, right, seen.result if c is None else c.operand, seen.result,
            None if bias is None else bias.operand,
        ]  # fmt: skip
        a_at, b_at, c_at, d_at, bias_at = (-1 if x is None else x.argument for x in operands)
        starts = self._starts(operands, [k for k in batch if k != one])
        return Plan(matmul, (a_at, b_at, c_at, d_at, bias_at), starts)

    def _extent(self, axis: int) -> int:
        return self.seen.extents[axis] if axis >= 0 else 1

    def _stride(self, operand: Operand, axis: int) -> int:
        return operand.strides[axis] if axis >= 0 else 0

    def _lies(self, operand: Operand, down: int, across: int) -> Matrix | None:
        """The operand as a matrix with ``down`` along its columns, if it is one."""
        rows, columns = self._extent(down), self._extent(across)
        if rows != 1 and self._stride(operand, down) != 1:
            return None
        leading = self._stride(operand, across) if columns != 1 else rows
        if leading < rows:
            return None
        return Matrix(operand.dtype, rows, columns, leading)

    def _either(self, operand: Operand, down: int, across: int) -> tuple[Matrix, bool] | None:
        """The operand as a matrix, and whether it is the transposed one that lies there."""
        straight = self._lies(operand, down, across)
        if straight is not None:
            return straight, False
        turned = self._lies(operand, across, down)
        return None if turned is None else (turned, True)

    def _added(self, operand: Operand, batch: int) -> Matrix | None:
        """What is added as a matrix like ``d``, one for each of a batch, if it is that."""
        found, step = self._lies(operand, self.first, self.second), self._stride(operand, batch)
        if found is None or (batch >= 0 and step <= 0):
            return None
        return replace(found, step=step)

    def _split(self) -> tuple[Term | None, Term | None] | None:
        """Which term is ``c`` and which the bias, if they can be."""
        c: Term | None = None
        bias: Term | None = None
        for term in self.seen.terms:
            operand = term.operand
            if operand.dtype != self.seen.result.dtype:
                return None
            steps = self._stride(operand, self.first), self._stride(operand, self.second)
            along = self.first < 0 or steps[0] == 1
            if bias is None and along and steps[1] == 0 and term.factor == 1.0:
                bias = term
            elif c is None:
                c = term
            else:
                return None
        return c, bias

    def _starts(
        self, operands: Sequence[Operand | None], outer: Sequence[int]
    ) -> tuple[tuple[int, ...], ...]:
        """Where everything begins in each call, the axes ``outer`` being rolled out."""
        return tuple(
            tuple(
                0 if x is None else x.offset + sum(n * x.strides[k] for n, k in zip(at, outer))
                for x in operands
            )
            for at in product(*(range(self._extent(k)) for k in outer))
        )
