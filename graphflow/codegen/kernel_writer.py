"""Loop IR as Python text: what the writers for the CPU and for CUDA share.

Statements and expressions look the same in both; what differs is how a kernel begins,
how it shares its loops, and how it reaches memory.  The text is canonical: nothing in
it comes from the user's program, so equal kernels are equal files.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from functools import cache
from typing import Any

import numpy as np

from graphflow.codegen.loops import (
    Accumulate,
    Apply,
    Better,
    Check,
    Checked,
    Choose,
    Combine,
    Count,
    Fold,
    Held,
    Hold,
    Keep,
    Kernel,
    Let,
    Literal,
    Load,
    Loop,
    Move,
    Offset,
    Position,
    Report,
    Share,
    Slot,
    Start,
    Statement,
    Store,
    Turn,
    Value,
    When,
    Within,
)
from graphflow.codegen.spaces import operands_of
from graphflow.codegen.writer import Writer
from graphflow.ir.types import DType

FORMULA_WIDTH = 88
_PLACEHOLDER = re.compile(r"\{(\d)\}")
_CALL = re.compile(r"[A-Za-z_][\w.]*\(|[\w.]+\Z")


def held_as(dtype: DType) -> str:
    """The type a kernel holds such a value in: half precision is computed in f32."""
    return "f32" if dtype.short in ("f16", "bf16") else dtype.short


def mentions(text: str, name: str) -> bool:
    """True when ``name`` occurs as a whole word that is no attribute."""
    start = text.find(name)
    while start >= 0:
        before, after = text[start - 1], text[start + len(name)]
        if not (before.isalnum() or before in "_." or after.isalnum() or after == "_"):
            return True
        start = text.find(name, start + 1)
    return False


def _postorder(kernel: Kernel) -> list[Value]:
    """Every value below the stores, operands first."""
    order: list[Value] = []
    done: set[Value] = set()
    bound = kernel.bound
    stack = [(bound.get(value, value), False) for _, value in reversed(kernel.stores)]
    while stack:
        value, ready = stack.pop()
        if ready:
            order.append(value)
            continue
        if value in done:
            continue
        done.add(value)
        stack.append((value, True))
        stack += [(bound.get(v, v), False) for v in reversed(operands_of(value))]
    return order


def operations_of(kernel: Kernel) -> Iterable[str]:
    """Names of the operations that a kernel applies, in order."""
    for value in _postorder(kernel):
        if isinstance(value, (Apply, Fold)):
            yield value.op.name


def formula_of(kernel: Kernel) -> str:
    """What is stored, as formulas over the pointers; long ones are shortened."""
    texts: dict[Value, str] = {}
    stands_for = {here: value for value, here in kernel.bound.items()}
    for value in _postorder(kernel):
        text = _formula_of(value, kernel, texts)
        if len(text) > FORMULA_WIDTH:
            short = {v: t if len(t) <= FORMULA_WIDTH // 4 else "..." for v, t in texts.items()}
            text = _formula_of(value, kernel, short)
            text = text if len(text) <= FORMULA_WIDTH else "..."
        texts[value] = texts[stands_for.get(value, value)] = text
    lines = [f"{name} = {texts[value]}" for name, value in dict.fromkeys(kernel.stores)]
    return "\n".join(lines) if len(lines) < 2 else "\n".join(lines) + "\n"


def _formula_of(value: Value, kernel: Kernel, texts: dict[Value, str]) -> str:
    if isinstance(value, Apply):
        template = value.op.scalar_for(value.operand_dtype).replace("vm.", "")
        return filled(template, [texts[a] for a in value.arguments], value.attrs)
    if isinstance(value, Load):
        inside = ", ".join(texts[at] for at in value.depends)
        return kernel.slots.get(value.slot, "...") + (f"[{inside}]" if inside else "")
    if isinstance(value, Fold):
        return f"{value.op.name}({texts[value.operand]})"
    if isinstance(value, Choose):
        return f"select(..., {texts[value.value]}, {texts[value.other]})"
    if isinstance(value, Checked):
        return texts[value.value]
    if isinstance(value, Literal):
        number = value.value
        return _single(number) if value.dtype.short == "f32" else _number(number)
    if isinstance(value, Count):
        return "1 / count" if value.reciprocal else "count"
    return "index"


def filled(template: str, arguments: Sequence[str], attrs: Any) -> str:
    """A scalar template with its operands, bracketed where they need it."""
    inner = {f"p{k}": a if _is_atom(a) else f"({a})" for k, a in enumerate(arguments)}
    return _bracketed(template).format(*arguments, **inner, **attrs)


@cache
def _bracketed(template: str) -> str:
    """``{0}`` becomes ``{p0}`` unless it stands alone between brackets or commas."""
    return _PLACEHOLDER.sub(lambda m: m[0] if _stands_alone(m) else f"{{p{m[1]}}}", template)


def _stands_alone(found: re.Match[str]) -> bool:
    text = found.string
    before, after = text[: found.start()], text[found.end() :]
    if not before and not after:
        return True
    return before.endswith(("(", ", ")) and after.startswith((")", ","))


@cache
def _is_atom(text: str) -> bool:
    """True for a name, a number, an element or one call: what binds tighter than operators."""
    found = _CALL.match(text)
    if found is None:
        if not (text.endswith("]") and text.split("[")[0].isidentifier()):
            return False
        return "]" not in text[:-1]
    if found.end() == len(text):
        return True
    depth = 0
    for position in range(found.end() - 1, len(text)):
        depth += (text[position] == "(") - (text[position] == ")")
        if depth == 0:
            return position == len(text) - 1
    return False


def _number(value: bool | int | float) -> str:
    if isinstance(value, float) and math.isnan(value):
        return "nan"
    return repr(value)


def _single(value: float) -> str:
    """The shortest text that reads back as the same single-precision number."""
    if not math.isfinite(value):
        return _number(value)
    text = str(np.float32(value))
    return text if np.float32(float(text)) == np.float32(value) else repr(value)


def literal(value: bool | int | float, dtype: DType) -> str:
    """A number of ``dtype``, spelled so that the compiled code has that type too."""
    if dtype.kind == "bool":
        return repr(bool(value))
    if dtype.is_floating_point:
        text = _number(float(value)) if dtype.short == "f64" else _single(float(value))
        return text if dtype.short == "f64" else f"{held_as(dtype)}({text})"
    return repr(int(value)) if dtype.short == "i64" else f"{dtype.short}({int(value)})"


class KernelWriter:
    """Writes statements; expressions are spelled by :meth:`text`."""

    def __init__(self, kernel: Kernel, out: Writer) -> None:
        self.kernel, self.out = kernel, out
        self.named: set[Value] = set()

    def element(self, slot: Slot, index: str) -> str:
        """The element of ``slot`` at ``index``, as it is computed with."""
        return f"{self.kernel.slots[slot]}[{index}]"

    def put(self, slot: Slot, index: str, text: str) -> str:
        """The statement that stores ``text`` into ``slot`` at ``index``."""
        return f"{self.kernel.slots[slot]}[{index}] = {text}"

    def statements(self, body: Sequence[Statement]) -> None:
        """Write statements in order."""
        for statement in body:
            getattr(self, _WRITERS[type(statement)])(statement)

    # ---- statements ------------------------------------------------------------------

    def let(self, statement: Let) -> None:
        """A name for a value."""
        text = self.text(statement.source, whole=statement.source is statement.value)
        self.named.add(statement.value)
        self.out.line(f"{self.kernel.names[statement.value]} = {text}")

    def offset(self, statement: Offset) -> None:
        """A name for an index expression."""
        self.out.line(f"{statement.name} = {statement.text}")

    def check(self, statement: Check) -> None:
        """An index from data, 0 where it is out of range; that it was is remembered."""
        name, extent = self.kernel.names[statement.value], statement.extent
        raw = statement.value.value
        text = self.text(raw)
        self.out.line(f"{name} = {text if raw.dtype.short == 'i64' else f'i64({text})'}")
        # Negative ones are large without a sign: one comparison for both ends.  Several checks
        # in a loop are one maximum to LLVM, but selections in a chain were no vectors.
        outside = f"u64({name}) >= u64({extent})"
        self.out.line(f"failed = max(failed, select({outside}, {statement.code}, 0))")
        self.out.line(f"{name} = select({outside}, 0, {name})")
        self.named.add(statement.value)

    def store(self, statement: Store) -> None:
        """A store, or a fold into what is there."""
        text = self.text(statement.value)
        if statement.fold is not None and statement.fold.reduction is not None:
            place = self.element(statement.slot, statement.index)
            text = filled(statement.fold.reduction.combine, [place, text], {})
        self.out.line(self.put(statement.slot, statement.index, text))

    def start(self, statement: Start) -> None:
        """An accumulator at its identity."""
        fold = statement.fold
        assert fold.op.reduction is not None
        dtype = fold.operand.dtype if fold.position is not None else fold.dtype
        identity = fold.op.reduction.identity(dtype)
        self.out.line(f"{statement.target} = {literal(identity, dtype)}")
        if statement.position:
            self.out.line(f"{statement.position} = 0")

    def accumulate(self, statement: Accumulate) -> None:
        """One more element folded into an accumulator."""
        fold, target = statement.fold, statement.target
        assert fold.op.reduction is not None
        operand = statement.operand
        text = operand if isinstance(operand, str) else self.text(operand)
        if isinstance(operand, Value) and held_as(operand.dtype) != held_as(fold.dtype):
            if fold.position is None:
                text = f"{held_as(fold.dtype)}({text})"
        combined = filled(fold.op.reduction.combine, [target, text], {})
        if fold.position is None:
            self.out.line(f"{target} = {combined}")
            return
        self.out.line(f"better = {combined}")
        self.out.line(f"{target} = select(better, {text}, {target})")
        where = self.text(fold.position)
        self.out.line(f"{statement.position} = select(better, {where}, {statement.position})")

    def loop(self, statement: Loop) -> None:
        """A loop and what is in it."""
        bounds = statement.end if statement.begin == "0" else f"{statement.begin}, {statement.end}"
        if statement.step:
            bounds = f"{statement.begin}, {statement.end}, {statement.step}"
        with self.out.block(f"for {statement.variable} in range({bounds}):"):
            self.statements(statement.body)

    def when(self, statement: When) -> None:
        """What runs under a condition."""
        text = self.text(statement.condition)
        with self.out.block(f"if {text}:" if statement.holds else f"if not {text}:"):
            self.statements(statement.body)

    def share(self, statement: Share) -> None:
        """A shared range."""
        raise NotImplementedError

    def report(self, statement: Report) -> None:
        """The end of a kernel that may fail."""
        raise NotImplementedError

    def combine(self, statement: Combine) -> None:
        """A fold over the threads of a block, which a processor does not have."""
        raise NotImplementedError

    def hold(self, statement: Hold) -> None:
        """An array in a thread's registers."""
        raise NotImplementedError

    def keep(self, statement: Keep) -> None:
        """An element of such an array."""
        raise NotImplementedError

    def move(self, statement: Move) -> None:
        """Several of them, to or from memory."""
        raise NotImplementedError

    def turn(self, statement: Turn) -> None:
        """A block that is transposed in registers."""
        raise NotImplementedError

    # ---- expressions -----------------------------------------------------------------

    def text(self, value: Value, whole: bool = False) -> str:
        """``value`` by name if it has one here (unless ``whole``), else written out."""
        if not whole and value in self.named:
            return self.kernel.names[value]
        name = self.kernel.names.get(value)
        if name is not None and isinstance(value, Fold):
            return name
        spelled: str = getattr(self, _SPELLERS[type(value)])(value)
        return spelled

    def spell_literal(self, value: Literal) -> str:
        """A number."""
        return literal(value.value, value.dtype)

    def spell_count(self, value: Count) -> str:
        """A number known at run time, or one part in that many."""
        number = f"{value.dtype.short}({self.kernel.counts[value.count]})"
        return f"{literal(1.0, value.dtype)} / {number}" if value.reciprocal else number

    def spell_position(self, value: Position) -> str:
        """An index as a value."""
        return self.kernel.indices[value.index]

    def spell_load(self, value: Load) -> str:
        """An element of memory."""
        text = self.element(value.slot, self.kernel.indices[value.index])
        if value.guard is None:
            return text
        return f"({text} if {self.text(value.guard)} else {literal(0, value.dtype)})"

    def spell_held(self, value: Held) -> str:
        """An element of an array in registers."""
        return f"{value.array}[{value.place}]"

    def spell_apply(self, value: Apply) -> str:
        """An operation on its operands."""
        template = value.op.scalar_for(value.operand_dtype)
        return filled(template, [self.text(a) for a in value.arguments], value.attrs)

    def spell_choose(self, value: Choose) -> str:
        """One value or another."""
        condition, inner = self.text(value.condition), value.value
        if isinstance(inner, Load) and inner.guard is value.condition and inner not in self.named:
            element = self.element(inner.slot, self.kernel.indices[inner.index])
            return f"({element} if {condition} else {self.text(value.other)})"
        return f"select({condition}, {self.text(inner)}, {self.text(value.other)})"

    def spell_better(self, value: Better) -> str:
        """Whether an element is better than the best so far."""
        assert value.fold.op.reduction is not None
        return filled(value.fold.op.reduction.combine, [value.best, value.other], {})

    def spell_within(self, value: Within) -> str:
        """Whether indices lie in their bounds."""
        tests = []
        integers = self.kernel.bounds
        for index, low, high in value.bounds:
            text = self.kernel.indices[index]
            if low is not None:
                tests.append(f"{text} >= {integers['low', index, low]}")
            if high is not None:
                tests.append(f"{text} < {integers['high', index, high]}")
        return f"({') & ('.join(tests)})" if len(tests) > 1 else tests[0] if tests else "True"


_WRITERS: dict[type, str] = {
    Let: "let",
    Offset: "offset",
    Check: "check",
    Combine: "combine",
    Store: "store",
    Hold: "hold",
    Keep: "keep",
    Move: "move",
    Turn: "turn",
    Start: "start",
    Accumulate: "accumulate",
    Share: "share",
    Loop: "loop",
    When: "when",
    Report: "report",
}
_SPELLERS: dict[type, str] = {
    Literal: "spell_literal",
    Count: "spell_count",
    Position: "spell_position",
    Load: "spell_load",
    Held: "spell_held",
    Apply: "spell_apply",
    Choose: "spell_choose",
    Within: "spell_within",
    Better: "spell_better",
}
