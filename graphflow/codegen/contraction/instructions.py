"""A function of LLVM written as text, instruction by instruction.

:class:`Builder` has the methods of llvmlite's ``IRBuilder`` that bodies of the vocabulary need,
under the same names.  It writes a line where that one makes an object of each instruction, which
takes ten times as long: bodies are most of what a product's kernel is made of::

    function = Function("twice", I64, [I64])
    b = Builder(function.append_basic_block("entry"))
    b.ret(b.add(*function.args * 2))
    print(function)
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import TypeAlias

Number: TypeAlias = "int | float"
_ROLLED = (
    '!0 = !{!"llvm.loop.unroll.disable"}',
    '!1 = !{!"llvm.loop.vectorize.enable", i1 false}',
)
_LOOP = "; loop"
"""What a line ends with that closes a loop, until loops are numbered."""
_RELATIONS = {"<": "lt", "<=": "le", ">": "gt", ">=": "ge"}


class Kind:
    """A type: its text, and ``count`` elements of kind ``element`` if it is a vector."""

    __slots__ = ("bits", "count", "element", "text")

    def __init__(self, text: str, bits: int = 0, element: Kind | None = None, count: int = 1):
        self.text, self.bits, self.element, self.count = text, bits, element, count

    def __call__(self, value: Number | Sequence[Number]) -> Value:
        """A constant; of a vector, with one number for each element."""
        if isinstance(value, Sequence):
            assert self.element is not None
            items = (f"{self.element.text} {self.element(item).text}" for item in value)
            return Value(f"<{', '.join(items)}>", self)
        return Value(_float_text(float(value), self) if self in (F32, F64) else str(value), self)

    def splat(self, value: Number) -> Value:
        """A constant vector with the same number everywhere."""
        assert self.element is not None
        item = f"{self.element.text} {self.element(value).text}"
        return Value(f"<{', '.join([item] * self.count)}>", self)

    @property
    def zero(self) -> Value:
        """All elements zero."""
        return Value("zeroinitializer", self)

    @property
    def undefined(self) -> Value:
        """Elements that may be anything."""
        return Value("undef", self)


def _float_text(value: float, kind: Kind) -> str:
    """The bits of ``value``, which LLVM takes as those of a double for any kind."""
    if kind is F32:
        (value,) = struct.unpack("f", struct.pack("f", value))
    return f"0x{struct.unpack('>Q', struct.pack('>d', value))[0]:016X}"


I1, I8, I16, I32, I64 = (Kind(f"i{bits}", bits) for bits in (1, 8, 16, 32, 64))
F32, F64 = Kind("float", 32), Kind("double", 64)
POINTER, VOID = Kind("ptr", 64), Kind("void")


@cache
def vector(element: Kind, count: int) -> Kind:
    """The kind of ``count`` elements in a register."""
    return Kind(f"<{count} x {element.text}>", count * element.bits, element, count)


class Value:
    """What instructions take and give: its text as an operand, and its kind."""

    __slots__ = ("text", "type")

    def __init__(self, text: str, kind: Kind) -> None:
        self.text, self.type = text, kind


class Phi(Value):
    """The value that belongs to the block from which control came."""

    __slots__ = ("_incoming",)

    def __init__(self, text: str, kind: Kind) -> None:
        super().__init__(text, kind)
        self._incoming: list[str] = []

    def add_incoming(self, value: Value, block: Block) -> None:
        """Be ``value`` where control comes from ``block``."""
        self._incoming.append(f"[ {value.text}, %{block.name} ]")

    def __str__(self) -> str:
        return f"  {self.text} = phi {self.type.text} {', '.join(self._incoming)}"


class Block:
    """Instructions that follow one another, the last of which goes elsewhere."""

    def __init__(self, function: Function, name: str) -> None:
        self.function, self.name = function, name
        self.lines: list[str | Phi] = []
        self.is_terminated = False


class Function:
    """A function being written; ``str()`` of it is a module of it and of those it ends with."""

    def __init__(self, name: str, result: Kind, kinds: Sequence[Kind]) -> None:
        self.name, self.kinds = name, (result, *kinds)
        self.args = [Value(f"%a{at}", kind) for at, kind in enumerate(kinds)]
        self.inner: list[Function] = []
        """Other functions of its module, which nobody else calls."""
        self.ignored: Sequence[Kind] = ()
        """Parameters after its own, for the sake of those who end with it."""
        self._blocks: list[Block] = []
        self._rooms: list[str] = []
        self._declared: dict[str, str] = {}
        self._count = 0

    def append_basic_block(self, name: str) -> Block:
        """A block to be written."""
        block = Block(self, f"{name}.{len(self._blocks)}")
        self._blocks.append(block)
        return block

    def fresh(self) -> str:
        """A name that no value has."""
        self._count += 1
        return f"%v{self._count}"

    def room(self, kind: Kind, count: int = 1) -> Value:
        """Memory for ``count`` values, for as long as the function runs."""
        name = self.fresh()
        self._rooms.append(f"  {name} = alloca {kind.text}, i32 {count}")
        return Value(name, POINTER)

    def declare(self, name: str, result: Kind, kinds: Sequence[Kind]) -> None:
        """Say what function ``name`` of LLVM takes and gives."""
        if name not in self._declared:
            taken = ", ".join(kind.text for kind in kinds)
            self._declared[name] = f"declare {result.text} @{name}({taken})"

    def __str__(self) -> str:
        functions = (self, *self.inner)
        declared = {name: line for one in functions for name, line in one._declared.items()}
        lines = [*declared.values()]
        for one in functions:
            lines += one._definition("internal " if one is not self else "")
        # What is said of a loop is a node of its own, which begins with itself.
        first, *parts = "\n".join([*lines, ""]).split(_LOOP)
        places = range(len(_ROLLED), len(_ROLLED) + len(parts))
        told = (f", !llvm.loop !{at}{part}" for at, part in zip(places, parts, strict=True))
        nodes = (f"!{at} = distinct !{{!{at}, !0, !1}}" for at in places)
        return "".join([first, *told, "\n".join([*_ROLLED, *nodes, ""])])

    def _definition(self, linkage: str) -> Iterator[str]:
        parameters = ", ".join(
            f"ptr noalias {arg.text}" if arg.type is POINTER else f"{arg.type.text} {arg.text}"
            for arg in self.args
        )
        parameters += "".join(f", {kind.text} %ignored{at}" for at, kind in enumerate(self.ignored))
        # A body has many call sites; one copy keeps compiling quick and the code small.
        head = f"{linkage}{self.kinds[0].text} @{self.name}({parameters})"
        yield f"define {head} noinline nounwind {{"
        for block in self._blocks:
            yield f"{block.name}:"
            if block is self._blocks[0]:
                yield from self._rooms
            yield from map(str, block.lines)
        yield "}"


def _of_two(operation: str) -> Callable[[Builder, Value, Value], Value]:
    """The method for an instruction that takes two of a kind and gives one."""

    def write(self: Builder, a: Value, b: Value) -> Value:
        return self._value(a.type, f"{operation} {a.type.text} {a.text}, {b.text}")

    return write


def _conversion(operation: str) -> Callable[[Builder, Value, Kind], Value]:
    """The method for an instruction that gives the value it takes as another kind."""

    def write(self: Builder, value: Value, kind: Kind) -> Value:
        return self._value(kind, f"{operation} {value.type.text} {value.text} to {kind.text}")

    return write


class Builder:
    """Writes instructions at the end of ``block``."""

    def __init__(self, block: Block) -> None:
        self.block, self._function = block, block.function

    def position_at_end(self, block: Block) -> None:
        """Go on there."""
        self.block = block

    def _value(self, kind: Kind, text: str) -> Value:
        name = self._function.fresh()
        self.block.lines.append(f"  {name} = {text}")
        return Value(name, kind)

    def _end(self, text: str) -> None:
        self.block.lines.append(f"  {text}")
        self.block.is_terminated = True

    # --- arithmetic and conversions ------------------------------------------

    sdiv, udiv, shl, and_, xor = map(_of_two, ("sdiv", "udiv", "shl", "and", "xor"))
    fadd, fsub, fmul = map(_of_two, ("fadd", "fsub", "fmul"))
    _add, _sub, _mul = map(_of_two, ("add", "sub", "mul"))
    sext, zext, bitcast = map(_conversion, ("sext", "zext", "bitcast"))
    ptrtoint, inttoptr = map(_conversion, ("ptrtoint", "inttoptr"))

    def add(self, a: Value, b: Value) -> Value:
        """Integers ``a + b``."""
        return a if b.text == "0" else self._add(a, b)

    def sub(self, a: Value, b: Value) -> Value:
        """Integers ``a - b``."""
        return a if b.text == "0" else self._sub(a, b)

    def mul(self, a: Value, b: Value) -> Value:
        """Integers ``a * b``."""
        if b.text in ("0", "1"):
            return b if b.text == "0" else a
        return self._mul(a, b)

    def not_(self, a: Value) -> Value:
        """All bits the other way round."""
        return self.xor(a, a.type(-1))

    def neg(self, a: Value) -> Value:
        """An integer, negated."""
        return self._sub(a.type(0), a)

    # --- choices ------------------------------------------------------------

    def icmp_signed(self, relation: str, a: Value, b: Value) -> Value:
        """Whether signed integers are in ``relation``, as Python writes it."""
        return self._compared("s", relation, a, b)

    def icmp_unsigned(self, relation: str, a: Value, b: Value) -> Value:
        """Whether unsigned integers, or pointers, are in ``relation``."""
        return self._compared("u", relation, a, b)

    def _compared(self, sign: str, relation: str, a: Value, b: Value) -> Value:
        known = {"==": "eq", "!=": "ne"}.get(relation) or sign + _RELATIONS[relation]
        kind = I1 if a.type.element is None else vector(I1, a.type.count)
        return self._value(kind, f"icmp {known} {a.type.text} {a.text}, {b.text}")

    def select(self, condition: Value, a: Value, b: Value) -> Value:
        """``a`` where ``condition`` holds, else ``b``."""
        chosen = f"{a.type.text} {a.text}, {b.type.text} {b.text}"
        return self._value(a.type, f"select {condition.type.text} {condition.text}, {chosen}")

    # --- vectors ------------------------------------------------------------

    def insert_element(self, whole: Value, value: Value, at: Value) -> Value:
        """``whole`` with ``value`` for one element."""
        item = f"{value.type.text} {value.text}, {at.type.text} {at.text}"
        return self._value(whole.type, f"insertelement {whole.type.text} {whole.text}, {item}")

    def extract_element(self, whole: Value, at: Value) -> Value:
        """One element."""
        assert whole.type.element is not None
        place = f"{at.type.text} {at.text}"
        return self._value(
            whole.type.element, f"extractelement {whole.type.text} {whole.text}, {place}"
        )

    def shuffle_vector(self, a: Value, b: Value, pattern: Value) -> Value:
        """Elements of ``a``, and behind them of ``b``, in the order of ``pattern``."""
        assert a.type.element is not None
        kind, both = a.type.text, vector(a.type.element, pattern.type.count)
        operands = f"{kind} {a.text}, {kind} {b.text}, {pattern.type.text} {pattern.text}"
        return self._value(both, f"shufflevector {operands}")

    # --- memory -------------------------------------------------------------

    def load(self, place: Value, typ: Kind, align: int = 0) -> Value:
        """What is at ``place``, which is aligned to ``align`` bytes, or to its own size."""
        aligned = f", align {align}" if align else ""
        return self._value(typ, f"load {typ.text}, ptr {place.text}{aligned}")

    def store(self, value: Value, place: Value, align: int = 0) -> None:
        """Put ``value`` at ``place``."""
        aligned = f", align {align}" if align else ""
        self.block.lines.append(
            f"  store {value.type.text} {value.text}, ptr {place.text}{aligned}"
        )

    def gep(self, place: Value, index: Value, source_etype: Kind, inbounds: bool = False) -> Value:
        """``place`` and ``index`` elements further."""
        if index.text == "0":
            return place
        kind = f"inbounds {source_etype.text}" if inbounds else source_etype.text
        item = f"{index.type.text} {index.text}"
        return self._value(POINTER, f"getelementptr {kind}, ptr {place.text}, {item}")

    def variable(self, value: Value) -> Value:
        """Memory that holds ``value`` from here on, until something else is stored."""
        place = self._function.room(value.type)
        self.store(value, place)
        return place

    # --- control ------------------------------------------------------------

    def call(self, name: str, result: Kind, arguments: Sequence[Value]) -> Value:
        """Call a function of LLVM's."""
        self._function.declare(name, result, [value.type for value in arguments])
        given = ", ".join(f"{value.type.text} {value.text}" for value in arguments)
        text = f"call {result.text} @{name}({given})"
        if result is not VOID:
            return self._value(result, text)
        self.block.lines.append(f"  {text}")
        return Value("", VOID)

    def phi(self, kind: Kind) -> Phi:
        """A value that depends on where control came from; first in its block."""
        phi = Phi(self._function.fresh(), kind)
        self.block.lines.append(phi)
        return phi

    def branch(self, block: Block) -> None:
        """Go to ``block``."""
        self._end(f"br label %{block.name}")

    def cbranch(self, condition: Value, then: Block, otherwise: Block) -> None:
        """Go to one of two blocks."""
        self._end(f"br i1 {condition.text}, label %{then.name}, label %{otherwise.name}")

    def repeat(self, condition: Value, begin: Block, after: Block) -> None:
        """Close a loop, which LLVM is told to leave alone: its body is full already."""
        self.cbranch(condition, begin, after)
        self.block.lines[-1] = f"{self.block.lines[-1]}{_LOOP}"

    def ret(self, value: Value) -> None:
        """End with a value."""
        self._end(f"ret {value.type.text} {value.text}")

    def ret_void(self) -> None:
        """End with none."""
        self._end("ret void")

    def end_with(self, function: Function) -> None:
        """Jump to ``function``, which becomes one of this module and takes this one's arguments.

        It returns nothing; what it does not know of the arguments it leaves alone.
        """
        outer = self._function
        function.ignored = outer.kinds[len(function.kinds) :]
        if function not in outer.inner:
            outer.inner.append(function)
        given = ", ".join(f"{value.type.text} {value.text}" for value in outer.args)
        self.block.lines.append(f"  musttail call void @{function.name}({given})")
        self.ret_void()

    @contextmanager
    def if_then(self, condition: Value) -> Iterator[None]:
        """Write what happens if ``condition`` holds."""
        then, after = (self._function.append_basic_block(n) for n in ("then", "after"))
        self.cbranch(condition, then, after)
        self.position_at_end(then)
        yield
        self._go_on(after)

    @contextmanager
    def if_else(self, condition: Value) -> Iterator[tuple[_Branch, _Branch]]:
        """Write what happens if ``condition`` holds in the first ``with``, else in the second."""
        names = ("then", "else", "after")
        then, otherwise, after = (self._function.append_basic_block(n) for n in names)
        self.cbranch(condition, then, otherwise)
        yield _Branch(self, then, after), _Branch(self, otherwise, after)
        self.position_at_end(after)

    def _go_on(self, after: Block) -> None:
        if not self.block.is_terminated:
            self.branch(after)
        self.position_at_end(after)


class _Branch:
    """One of two ways, to be written in a ``with``."""

    def __init__(self, builder: Builder, begin: Block, after: Block) -> None:
        self._builder, self._begin, self._after = builder, begin, after

    def __enter__(self) -> None:
        self._builder.position_at_end(self._begin)

    def __exit__(self, *_: object) -> None:
        self._builder._go_on(self._after)
