"""What code reads by name, found in its bytecode: variables and attributes of them.

``scaled(self.options, x.data)`` reads the paths ``self.options`` and ``x.data``.  A path is *used*
where more is done with its value than look up attributes: the value is called, handed on, iterated
over.  Attributes of values that no path leads to, as in ``table[0].rate`` and ``found().rate``, are
*loose* names: of whatever object the code comes by.
"""

from __future__ import annotations

import dis
import functools
import sys
import types
from collections.abc import Iterator
from typing import Any

from graphflow.records import dataclass

_NO_EFFECT = frozenset(
    ("CACHE", "EXTENDED_ARG", "NOP", "RESUME", "PUSH_NULL", "PRECALL", "KW_NAMES", "MAKE_CELL",
     "COPY_FREE_VARS", "LOAD_CLOSURE", "NOT_TAKEN")
)  # fmt: skip
_LOCALS = ("LOAD_FAST", "LOAD_FAST_CHECK", "LOAD_FAST_BORROW")
_OUTER = ("LOAD_DEREF", "LOAD_CLASSDEREF", "LOAD_FROM_DICT_OR_DEREF")
_GLOBALS = ("LOAD_GLOBAL", "LOAD_NAME", "LOAD_FROM_DICT_OR_GLOBALS")
_STORES = ("STORE_FAST", "STORE_DEREF")


@dataclass(frozen=True, slots=True)
class Path:
    """A variable and attributes of it; ``is_global`` tells where the variable is looked up."""

    variable: str
    attributes: tuple[str, ...] = ()
    is_global: bool = False

    def to(self, attribute: str) -> Path:
        """The path to an attribute of the value."""
        return Path(self.variable, (*self.attributes, attribute), self.is_global)

    def is_below(self, other: Path) -> bool:
        """Whether this goes on from where ``other`` ends."""
        above = Path(self.variable, self.attributes[: len(other.attributes)], self.is_global)
        return above == other != self


@dataclass(frozen=True, slots=True)
class Names:
    """What a function's code reads, with that of the functions defined inside of it."""

    paths: tuple[tuple[Path, bool], ...]
    """Paths, and whether their values are used."""
    loose: tuple[tuple[str, bool], ...]
    """Attributes of values without a path, and whether more is done than call them."""
    texts: tuple[str, ...]
    """Strings by which ``getattr`` and ``hasattr`` may look for attributes."""
    inherited: tuple[str, ...]
    """Methods called by ``super()``."""


@functools.lru_cache(maxsize=1024)
def names_in(code: types.CodeType) -> Names:
    """What ``code`` reads by name."""
    scan = _Scan(code, None)
    paths: dict[Path, bool] = {}
    loose: dict[str, bool] = {}
    texts: list[str] = []
    inherited: list[str] = []
    for part in scan.all():
        for path, used in part.paths.items():
            paths[path] = paths.get(path, False) or used
        for name, read in part.loose.items():
            loose[name] = loose.get(name, False) or read
        inherited += part.inherited
        texts += [c for c in part.code.co_consts if isinstance(c, str) and c.isidentifier()]
    if not {Path(name, (), True) for name in ("getattr", "hasattr")} & paths.keys():
        texts = []
    return Names(tuple(paths.items()), tuple(loose.items()), tuple(texts), tuple(inherited))


class _Scan:
    """A pass over instructions for what is read, a second one where variables name paths."""

    def __init__(self, code: types.CodeType, outer: _Scan | None) -> None:
        self.code = code
        self.paths: dict[Path, bool] = {}
        self.loose: dict[str, bool] = {}
        self.inherited: list[str] = []
        self._outer = outer
        self._aliases: dict[str, list[Path]] = {}
        self._unknown: set[str] = set()
        self._inside = {*code.co_cellvars, *code.co_freevars}
        count = code.co_argcount + code.co_kwonlyargcount
        stars = bool(code.co_flags & 0x04) + bool(code.co_flags & 0x08)
        self._parameters = code.co_varnames[: count + stars]
        steps = [step for step in dis.get_instructions(code) if step.opname not in _NO_EFFECT]
        self._begin()
        for step in steps:
            self._step(step)
        if self._aliases or self._unknown:  # a loop's end may name what its beginning reads
            self._begin()
            for step in steps:
                self._step(step)
        inner = (c for c in code.co_consts if isinstance(c, types.CodeType))
        self._inner = [_Scan(c, self) for c in inner]

    def all(self) -> Iterator[_Scan]:
        """This one and those of the functions inside."""
        yield self
        for scan in self._inner:
            yield from scan.all()

    def named(self, name: str) -> tuple[list[Path], bool]:
        """What a variable of this code may be: paths, and whether something else."""
        found = list(self._aliases.get(name, ()))
        unknown = name in self._unknown
        if self._outer is None and (name in self._parameters or name in self.code.co_freevars):
            found.append(Path(name))
        elif self._outer is not None and name in self.code.co_freevars:
            paths, other = self._outer.named(name)
            found, unknown = [*found, *paths], unknown or other
        elif name in self._parameters:
            unknown = True
        return found, unknown

    # ---- instructions --------------------------------------------------------------

    def _begin(self) -> None:
        self.paths.clear()
        self.loose.clear()
        self.inherited.clear()
        self._top: list[Path] = []
        """The paths of the value on top of the stack, if it has any."""
        self._is_other = False
        """Whether that value may be one without a path, of which an attribute is read."""
        self._copy: list[Path] = []
        self._super = False

    def _step(self, step: dis.Instruction) -> None:
        name, value = step.opname, step.argval
        if step.is_jump_target:
            self._is_other = True  # of another branch
        if name in ("LOAD_ATTR", "LOAD_METHOD"):
            self._attribute(value, name == "LOAD_METHOD" or _calls(step))
        elif name in ("STORE_ATTR", "DELETE_ATTR"):
            self._put([], False)
        elif name == "LOAD_SUPER_ATTR":
            self.inherited.append(value)
            self._put([], True)
        elif name == "COPY" and self._top:
            self._copy = self._top
        else:
            is_super = self._super
            self._variables(name, value)
            self._super = name in _GLOBALS and value == "super"
            if is_super and name == "CALL" and not step.arg:
                self._super = True  # the next attribute is of the base class

    def _variables(self, name: str, value: Any) -> None:
        """A load or store of one or two variables, or anything else."""
        parts = _parts(name)
        if not parts:
            self._use()
            self._put([], True)
            return
        for part, variable in zip(parts, value if len(parts) > 1 else (value,)):
            if part in _STORES:
                self._store(variable)
            else:
                self._load(part, variable)

    def _attribute(self, attribute: str, calls: bool) -> None:
        if self._super:
            self._super = False
            self.inherited.append(attribute)
            self._put([], True)
            return
        if self._is_other or not self._top:
            self.loose[attribute] = self.loose.get(attribute, False) or not calls
        other = self._is_other or not self._top
        self._put([path.to(attribute) for path in self._top], other, keep_copy=True)
        for path in self._top:
            self.paths.setdefault(path, False)

    def _load(self, name: str, variable: str) -> None:
        self._use()
        if name in _GLOBALS:
            self._put([Path(variable, (), True)], False)
        elif name in _LOCALS and variable in self._inside:
            self._put([], True)  # a cell for a function inside
        else:
            self._put(*self.named(variable))
        for path in self._top:
            self.paths.setdefault(path, False)

    def _store(self, variable: str) -> None:
        known = self.named(variable)[0]
        if any(path.is_below(other) for path in self._top for other in known):
            self._use()  # node = node.next: any number of steps down
            self._put([], True)
        new = [path for path in self._top if path not in known]
        if new:
            self._aliases.setdefault(variable, []).extend(new)
        if self._is_other or not self._top:
            self._unknown.add(variable)
        copy, self._copy = self._copy, []
        self._put(copy, not copy)

    def _use(self) -> None:
        for path in self._top:
            self.paths[path] = True

    def _put(self, paths: list[Path], other: bool, keep_copy: bool = False) -> None:
        self._top, self._is_other = paths, other
        if not keep_copy:
            self._copy = []


@functools.lru_cache(maxsize=256)
def _parts(name: str) -> tuple[str, ...]:
    """The loads and stores of variables that an instruction is made of."""
    if name in _PLAIN_ACCESS:
        return (name,)
    for first in _PLAIN_ACCESS:
        second = name.removeprefix(f"{first}_")
        if second != name and second in _PLAIN_ACCESS:
            return first, second
    return ()


_PLAIN_ACCESS = (*_LOCALS, *_OUTER, *_GLOBALS, *_STORES)


def _calls(step: dis.Instruction) -> bool:
    """Whether an attribute is loaded to be called, by an instruction that does both."""
    return sys.version_info >= (3, 12) and bool((step.arg or 0) & 1)
