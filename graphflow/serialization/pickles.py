"""Pickles read as data: a small machine that can build plain values and nothing else.

A pickle is a program; Python's own reader imports and calls what it names.
This one looks names up in a table that its caller gives, and among those that
the user allowed, calls only what stands there, and ends with an error at any
other.  Opcodes are taken apart by the
standard library's ``pickletools``, which runs nothing.
"""

from __future__ import annotations

import pickletools
from collections.abc import Callable, Mapping
from typing import IO, Any

import numpy as np

from graphflow.errors import GraphFlowError
from graphflow.serialization.safe import allowed, is_allowed

_LONGEST_LINE = 1 << 16
Names = Mapping[tuple[str, str], Any]


class Maker:
    """A name of the table that may be called: ``Maker(function)``."""

    def __init__(self, make: Callable[..., Any]) -> None:
        self.make = make


class Allowed(Maker):
    """A class or function that the user allowed to be called."""

    def new(self, *arguments: Any) -> Any:
        """An instance that was not initialised; what it holds follows."""
        kind: Any = self.make
        return kind.__new__(kind, *arguments)


class Limited:
    """A stream that never tries to read more than there is, whatever a length claims."""

    def __init__(self, stream: IO[bytes], size: int) -> None:
        self._stream, self.left = stream, size

    def read(self, count: int) -> bytes:
        """At most ``count`` bytes."""
        data = self._stream.read(max(0, min(count, self.left)))
        self.left -= len(data)
        return data

    def readline(self) -> bytes:
        """A line, up to a sensible length."""
        line = self._stream.readline(min(_LONGEST_LINE, self.left))
        self.left -= len(line)
        return line


def read_pickle(
    stream: Limited, names: Names, persistent: Callable[[Any], Any] | None, file: str
) -> Any:
    """The value of the next pickle in ``stream``.

    ``names`` maps (module, name) to a :class:`Maker` or a value; ``persistent``
    answers persistent ids.  Raises :class:`GraphFlowError` naming ``file``.
    """
    machine = _Machine(names, persistent, file)
    try:
        for opcode, argument, _ in pickletools.genops(stream):  # type: ignore[arg-type]
            if opcode.name == "STOP":
                return machine.stack.pop()
            machine.step(opcode.name, argument)
    except GraphFlowError:
        raise
    except Exception as error:  # whatever nonsense the bytes amount to
        text = f"{type(error).__name__}: {error}"
        raise GraphFlowError(f"{file}: the pickle in it is damaged ({text})") from None
    raise GraphFlowError(f"{file}: the pickle in it ends early")


class _Machine:
    """The stack, the marked stacks below it, and the memo."""

    def __init__(self, names: Names, persistent: Callable[[Any], Any] | None, file: str) -> None:
        self.names, self.persistent, self.file = names, persistent, file
        self.stack: list[Any] = []
        self.below: list[list[Any]] = []
        self.memo: dict[int, Any] = {}

    def step(self, name: str, argument: Any) -> None:
        if name in _PUSHES:
            self.stack.append(argument)
        elif name in _MAKES:
            self.stack.append(_MAKES[name]())
        elif name in _ACTIONS:
            _ACTIONS[name](self, argument)
        elif name not in _IGNORED:
            raise GraphFlowError(
                f"{self.file}: the pickle in it uses {name}, which plain data do not need"
            )

    def marked(self) -> list[Any]:
        """What was pushed since the last mark."""
        items, self.stack = self.stack, self.below.pop()
        return items

    def mark(self, _: Any) -> None:
        self.below.append(self.stack)
        self.stack = []

    def pop(self, _: Any) -> None:
        if self.stack:
            self.stack.pop()
        else:
            self.stack = self.below.pop()

    def pop_mark(self, _: Any) -> None:
        self.marked()

    def duplicate(self, _: Any) -> None:
        self.stack.append(self.stack[-1])

    def put(self, index: Any) -> None:
        self.memo[len(self.memo) if index is None else int(index)] = self.stack[-1]

    def get(self, index: Any) -> None:
        self.stack.append(self.memo[int(index)])

    def tuples(self, count: int) -> None:
        cut = len(self.stack) - count
        if cut < 0:
            raise ValueError("the stack is too short")
        self.stack[cut:] = [tuple(self.stack[cut:])]

    def make_tuple(self, _: Any) -> None:
        items = self.marked()
        self.stack.append(tuple(items))

    def make_list(self, _: Any) -> None:
        items = self.marked()
        self.stack.append(items)

    def make_dict(self, _: Any) -> None:
        items = self.marked()
        self.stack.append(dict(zip(items[::2], items[1::2], strict=True)))

    def make_frozenset(self, _: Any) -> None:
        items = self.marked()
        self.stack.append(frozenset(items))

    def append(self, _: Any) -> None:
        item = self.stack.pop()
        self.target(list).append(item)

    def extend(self, _: Any) -> None:
        items = self.marked()
        self.target(list).extend(items)

    def set_item(self, _: Any) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        self.target(dict)[key] = value

    def set_items(self, _: Any) -> None:
        items = self.marked()
        self.target(dict).update(zip(items[::2], items[1::2], strict=True))

    def add_items(self, _: Any) -> None:
        items = self.marked()
        self.target(set).update(items)

    def target(self, kind: type) -> Any:
        """The container on top of the stack."""
        if not isinstance(self.stack[-1], kind):
            raise TypeError(f"{type(self.stack[-1]).__name__} is no {kind.__name__}")
        return self.stack[-1]

    def name(self, argument: Any) -> None:
        module, _, name = argument.partition(" ")
        self.stack.append(self.find(module, name))

    def stack_name(self, _: Any) -> None:
        name, module = self.stack.pop(), self.stack.pop()
        self.stack.append(self.find(module, name))

    def find(self, module: Any, name: Any) -> Any:
        found = self.names.get((module, name), self)
        if found is not self:
            return found
        own = allowed(module, name)
        if own is None:
            raise GraphFlowError(
                f"{self.file}: it holds a {module}.{name}, which only running code could load; "
                "GraphFlow loads tensors, numbers, strings and containers of them. "
                "If it is a whole model, save its state_dict() instead; of a class that you trust "
                f"say gf.serialization.add_safe_globals([{name}]) first"
            )
        return Allowed(own)

    def call(self, _: Any) -> None:
        arguments, maker = self.stack.pop(), self.stack.pop()
        if not isinstance(maker, Maker) or not isinstance(arguments, tuple):
            raise TypeError(f"{type(maker).__name__} cannot be called")
        self.stack.append(maker.make(*arguments))

    def new(self, _: Any) -> None:
        if isinstance(self.stack[-2], Allowed):
            self.stack[-2:] = [self.stack[-2].new(*self.stack[-1])]
        else:
            self.call(None)

    def build(self, _: Any) -> None:
        state, target = self.stack.pop(), self.stack[-1]
        if isinstance(target, np.ndarray):
            fill_array(target, state)
        elif isinstance(target, DTypeState):
            target.fill(state)
        elif is_allowed(type(target)):
            set_state(target, state)
        elif not isinstance(target, dict):  # the attributes of an OrderedDict are left out
            raise TypeError(f"{type(target).__name__} takes no state")

    def persistent_id(self, _: Any) -> None:
        if self.persistent is None:
            raise TypeError("it refers to something outside")
        self.stack.append(self.persistent(self.stack.pop()))


_IGNORED = {"PROTO", "FRAME"}
_PUSHES = {
    "INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT",
    "STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "BINUNICODE", "SHORT_BINUNICODE",
    "BINUNICODE8", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8",
}  # fmt: skip
_MAKES: dict[str, Callable[[], Any]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_LIST": list,
    "EMPTY_DICT": dict,
    "EMPTY_TUPLE": tuple,
    "EMPTY_SET": set,
}
_ACTIONS: dict[str, Callable[[_Machine, Any], None]] = {
    "MARK": _Machine.mark,
    "POP": _Machine.pop,
    "POP_MARK": _Machine.pop_mark,
    "DUP": _Machine.duplicate,
    "PUT": _Machine.put,
    "BINPUT": _Machine.put,
    "LONG_BINPUT": _Machine.put,
    "MEMOIZE": _Machine.put,
    "GET": _Machine.get,
    "BINGET": _Machine.get,
    "LONG_BINGET": _Machine.get,
    "TUPLE": _Machine.make_tuple,
    "TUPLE1": lambda machine, _: machine.tuples(1),
    "TUPLE2": lambda machine, _: machine.tuples(2),
    "TUPLE3": lambda machine, _: machine.tuples(3),
    "LIST": _Machine.make_list,
    "DICT": _Machine.make_dict,
    "FROZENSET": _Machine.make_frozenset,
    "APPEND": _Machine.append,
    "APPENDS": _Machine.extend,
    "SETITEM": _Machine.set_item,
    "SETITEMS": _Machine.set_items,
    "ADDITEMS": _Machine.add_items,
    "GLOBAL": _Machine.name,
    "STACK_GLOBAL": _Machine.stack_name,
    "REDUCE": _Machine.call,
    "NEWOBJ": _Machine.new,
    "BUILD": _Machine.build,
    "BINPERSID": _Machine.persistent_id,
}


def set_state(target: Any, state: Any) -> None:
    """Give an instance of an allowed class what it holds."""
    if hasattr(target, "__setstate__"):
        target.__setstate__(state)
        return
    attributes, slots = state if isinstance(state, tuple) else (state, None)
    if attributes:
        target.__dict__.update(attributes)
    for name, value in (slots or {}).items():
        setattr(target, name, value)


# ---- NumPy's own pickles ------------------------------------------------------------------


class DTypeState:
    """A NumPy dtype that a pickle builds in two steps: its name, then its byte order."""

    def __init__(self, name: Any, *_: Any) -> None:
        self.dtype = np.dtype(str(name))
        if self.dtype.kind not in "biufc" or self.dtype.fields is not None:
            raise TypeError(f"an array of {self.dtype} is not numbers")

    def fill(self, state: Any) -> None:
        """Take over the byte order."""
        if state[1] in ("<", ">"):
            self.dtype = self.dtype.newbyteorder(state[1])

    def read(self, data: Any, shape: tuple[int, ...], order: Any = "C") -> np.ndarray[Any, Any]:
        """An array of these bytes; its size must be theirs."""
        raw = data.encode("latin-1") if isinstance(data, str) else bytes(data)
        array = np.frombuffer(raw, self.dtype).reshape(shape, order=order)
        return np.array(array, self.dtype.newbyteorder("="))


def fill_array(array: np.ndarray[Any, Any], state: Any) -> None:
    """Give an array that ``_reconstruct`` made its content."""
    _, shape, dtype, fortran, data = state
    made = dtype.read(data, shape, "F" if fortran else "C")
    # NumPy changes an array in place only through its state.
    state = (1, made.shape, made.dtype, False, made.tobytes())
    array.__setstate__(state)


def _bytes_of(text: str, encoding: str = "latin1") -> bytes:
    if encoding not in ("latin1", "latin-1", "utf-8", "utf8", "ascii"):
        raise ValueError(f"unknown encoding {encoding!r}")
    return text.encode(encoding)


def numpy_names() -> dict[tuple[str, str], Any]:
    """The names in pickles of NumPy arrays and scalars, and of bytes."""
    names: dict[tuple[str, str], Any] = {
        ("numpy", "ndarray"): None,
        ("numpy", "dtype"): Maker(DTypeState),
        ("_codecs", "encode"): Maker(_bytes_of),
    }
    for core in ("numpy.core", "numpy._core"):
        module = f"{core}.multiarray"
        names[module, "_reconstruct"] = Maker(lambda *_: np.empty(0))
        names[module, "scalar"] = Maker(lambda dtype, data: dtype.read(data, ())[()])
        names[f"{core}.numeric", "_frombuffer"] = Maker(
            lambda data, dtype, shape, order: dtype.read(data, shape, order)
        )
    return names
