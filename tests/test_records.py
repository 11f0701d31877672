"""Our cheap data classes behave as the standard library's do."""

import copy
import dataclasses
import pickle
import subprocess
import sys
from typing import Any, ClassVar, NamedTuple

import pytest

from graphflow import records

KINDS = (dataclasses, records)
OPTIONS = (
    {},
    {"frozen": True},
    {"slots": True},
    {"frozen": True, "slots": True},
    {"frozen": True, "eq": False},
    {"frozen": True, "slots": True, "eq": False},
)


def point(kind: Any, options: dict[str, bool]) -> Any:
    """A class with every sort of field, made by ``kind.dataclass``."""

    class Point:
        shared: ClassVar[int] = 7
        x: int
        y: float = 2.5
        tags: list[str] = kind.field(default_factory=list)
        hidden: str = kind.field(default="h", repr=False)

        def norm(self) -> float:
            """Something of the class's own."""
            return self.x + self.y

    return kind.dataclass(**options)(Point)


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_they_agree_with_the_standard_library(options: dict[str, bool]) -> None:
    theirs, ours = (point(kind, options) for kind in KINDS)
    for made in (lambda c: c(1), lambda c: c(1, y=3.0), lambda c: c(2, 4.0, ["a"], hidden="z")):
        a, b = made(theirs), made(ours)
        assert (a.x, a.y, a.tags, a.hidden) == (b.x, b.y, b.tags, b.hidden)
        assert repr(a) == repr(b)
        assert b.norm() == a.norm() and b.shared == 7
        assert hasattr(a, "__dict__") == hasattr(b, "__dict__")
        assert (made(theirs) == a) == (made(ours) == b)
        assert (theirs(9) == a) == (ours(9) == b)
    assert theirs.__match_args__ == ours.__match_args__
    assert (theirs.__hash__ is None) == (ours.__hash__ is None)
    assert ours(1).tags is not ours(1).tags
    for wrong in ((), (1, 2, 3, 4, 5)):
        for kind in (theirs, ours):
            with pytest.raises(TypeError):
                kind(*wrong)


@pytest.mark.parametrize("options", [o for o in OPTIONS if o.get("frozen")], ids=str)
def test_frozen_ones_refuse_changes(options: dict[str, bool]) -> None:
    value = point(records, options)(1)
    with pytest.raises(AttributeError, match="'x'"):
        value.x = 2
    with pytest.raises(AttributeError, match="'x'"):
        del value.x
    assert value.x == 1
    changed = records.replace(value, x=5)
    assert (changed.x, changed.y, value.x) == (5, 2.5, 1)
    with pytest.raises(TypeError):
        records.replace(value, nothing=1)


def test_hash_follows_the_fields() -> None:
    @records.dataclass(frozen=True, slots=True)
    class Pair:
        a: int
        b: str

    assert hash(Pair(1, "x")) == hash(Pair(1, "x")) and Pair(1, "x") != Pair(2, "x")
    assert len({Pair(1, "x"), Pair(1, "x"), Pair(1, "y")}) == 2

    @records.dataclass(frozen=True)
    class Own:
        a: int

        def __hash__(self) -> int:
            return 42

    assert hash(Own(1)) == 42


def test_inheritance_and_post_init() -> None:
    @records.dataclass(frozen=True)
    class Base:
        a: int

        def __post_init__(self) -> None:
            if self.a < 0:
                raise ValueError("a")

    @records.dataclass(frozen=True)
    class Derived(Base):
        b: int = 3

    assert (Derived(1).a, Derived(1).b) == (1, 3)
    assert Base(1) != Derived(1)
    with pytest.raises(ValueError, match="a"):
        Derived(-1)


@records.dataclass(frozen=True, slots=True)
class Sent:
    """One that pickle can find by name."""

    a: int
    b: tuple[int, ...] = ()


def test_they_can_be_pickled() -> None:
    assert pickle.loads(pickle.dumps(Sent(1, (2, 3)))) == Sent(1, (2, 3))


def test_importing_graphflow_writes_no_data_classes() -> None:
    program = (
        "import numpy, sys; before = 'dataclasses' in sys.modules; import graphflow;"
        "print(before, 'dataclasses' in sys.modules)"
    )
    shown = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert shown.stdout.split() == ["False", "False"]


def _triple(base: Any, name: str) -> Any:
    class Triple(base):
        x: int
        y: str = "why"
        z: float = 0.5

        @property
        def double(self) -> int:
            """Something of the class's own."""
            return 2 * self.x

    Triple.__name__ = Triple.__qualname__ = name  # to be found by who reads a pickle
    return Triple


_Theirs, _Ours = _triple(NamedTuple, "_Theirs"), _triple(records.NamedTuple, "_Ours")


def test_named_tuples_agree_with_the_standard_library() -> None:
    makers: list[Any] = [
        lambda c: c(1), lambda c: c(1, "a"), lambda c: c(z=2.0, x=1), lambda c: c(1, "b", 2.5),
        lambda c: c._make([1, "c", 3.5]), lambda c: c(1)._replace(y="d"), lambda c: c(*c(4)),
    ]  # fmt: skip
    for make in makers:
        theirs, ours = make(_Theirs), make(_Ours)
        assert tuple(theirs) == tuple(ours) == ours and hash(theirs) == hash(ours)
        assert (theirs.x, theirs.y, theirs.z, theirs.double) == (
            ours.x,
            ours.y,
            ours.z,
            ours.double,
        )
        assert theirs._asdict() == ours._asdict()
        assert repr(theirs).replace("_Theirs", "_Ours") == repr(ours)
        for again in (pickle.loads(pickle.dumps(ours)), copy.copy(ours), copy.deepcopy(ours)):
            assert again == ours and type(again) is _Ours
        match ours:
            case _Ours(x, y):
                assert (x, y) == ours[:2]
        with pytest.raises(AttributeError):
            ours.x = 2  # type: ignore[misc]
    assert _Theirs._fields == _Ours._fields and _Theirs._field_defaults == _Ours._field_defaults
    assert not hasattr(_Ours(1), "__dict__")
    for wrong in (
        lambda c: c(),
        lambda c: c(1, "a", 2.0, 3),
        lambda c: c(1, x=2),
        lambda c: c(1, w=2),
    ):
        for kind in (_Theirs, _Ours):
            with pytest.raises(TypeError):
                wrong(kind)


def test_subclasses_that_are_made_otherwise_are_replaced_and_made_of_values() -> None:
    for kind in (_Theirs, _Ours):

        class Made(kind):  # type: ignore[misc, valid-type]
            def __new__(cls, number: int) -> Any:
                return super().__new__(cls, number, "made")

        made = Made(3)._replace(z=1.5)
        assert type(made) is Made and tuple(made) == (3, "made", 1.5)
        assert tuple(Made._make([1, "a", 2.0])) == (1, "a", 2.0)
        for wrong in ([1], [1, "a", 2.0, 3]):
            with pytest.raises(TypeError):
                kind._make(wrong)
        with pytest.raises((TypeError, ValueError)):
            kind(1)._replace(w=2)
