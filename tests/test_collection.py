"""Garbage collection while programs are built: off, put back, and still bounded."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest

from graphflow.codegen import compile as compiling
from graphflow.codegen.schedule import KernelSource
from graphflow.collection import without_collection


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    """Collection is on before and after, and nothing is frozen."""
    gc.enable()
    gc.unfreeze()
    yield
    gc.unfreeze()
    gc.enable()


def test_collection_is_off_inside_and_on_afterwards() -> None:
    @without_collection
    def outer() -> None:
        assert not gc.isenabled()
        assert not without_collection(gc.isenabled)()
        assert not gc.isenabled()

    outer()
    assert gc.isenabled() and gc.get_freeze_count() == 0


def test_collection_that_is_off_stays_off() -> None:
    gc.disable()
    assert not without_collection(gc.isenabled)()
    assert not gc.isenabled()


def test_what_a_user_froze_stays_frozen() -> None:
    gc.freeze()
    with pytest.raises(ZeroDivisionError):
        without_collection(divmod)(1, 0)
    assert gc.isenabled() and gc.get_freeze_count() > 0


def test_what_numba_leaves_behind_is_collected_once_it_is_much(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    header = "from graphflow.codegen.prelude import kernel, pointer_i64\n\n\n@kernel\n"
    body = "(args, tid, nth):\n    pointer_i64(args, 0)[0] = 7\n"
    kernels = [KernelSource(f"set_{n}", f"{header}def set_{n}{body}") for n in range(4)]
    collected: list[int] = []
    monkeypatch.setattr(compiling, "_UNCOLLECTED", 2 * len(kernels[0].source))
    monkeypatch.setattr(compiling.gc, "collect", collected.append)
    assert len(compiling.compile_kernels(kernels).objects) == 4
    assert collected == [0, 0]
