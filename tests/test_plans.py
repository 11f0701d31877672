"""Plans kept between processes: what they spare, and what becomes of those that do not fit."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import graphflow as gf
from graphflow import flags
from graphflow.codegen import estimate
from graphflow.codegen.schedule_form import from_data, to_data
from graphflow.compiled import Compiled
from graphflow.nn.functional import cross_entropy
from graphflow.passes import laws, pipeline
from graphflow.program import Program
from graphflow.runtime import encoding, plans, walk
from graphflow.runtime.launch import LoadedProgram
from graphflow.runtime.plans import Plan, load_plan, store_plan

KEY = bytes(range(32))


def step(rows: int = 8, size: int = 16) -> tuple[Compiled, tuple[gf.Tensor, gf.Tensor]]:
    """A compiled training step of two layers, whose first weights are always the same."""
    gf.manual_seed(3)
    model = gf.nn.Sequential(gf.nn.Linear(size, size), gf.nn.ReLU(), gf.nn.Linear(size, 5))
    optimizer = gf.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)

    def run(images: gf.Tensor, labels: gf.Tensor) -> gf.Tensor:
        optimizer.zero_grad()
        loss = cross_entropy(model(images), labels)
        loss.backward()
        optimizer.step()
        return loss

    return gf.compile(run), (gf.randn(rows, size), gf.randint(0, 5, (rows,)))


def refuse(*args: Any, **kwargs: Any) -> Any:
    raise AssertionError("a plan that is kept spares this")


def unread(program: Program) -> bool:
    """Whether the steps of a program's schedule have not been read."""
    return "steps" not in program.schedule.__dict__


def same_tape(a: LoadedProgram, b: LoadedProgram) -> bool:
    names = ("code", "relocations", "area", "entries")
    pairs = [(getattr(a.tape, name), getattr(b.tape, name)) for name in names]
    return a.tape.calls == b.tape.calls and all(np.array_equal(x, y) for x, y in pairs)


def test_a_program_that_is_kept_runs_without_its_steps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with flags.override(cache_dir=str(tmp_path)):
        first, batch = step()
        losses = [first(*batch).item() for _ in range(3)]
        monkeypatch.setattr(encoding, "encode", refuse)
        monkeypatch.setattr(estimate, "estimate_ns", refuse)
        monkeypatch.setattr(pipeline, "run_pipeline", refuse)
        again, batch = step()
        assert [again(*batch).item() for _ in range(3)] == losses
        made, kept = first.programs[0], again.programs[0]
        assert unread(kept) and same_tape(made.loaded, kept.loaded)
        expected = from_data(*to_data(made.schedule))
        assert str(kept.schedule) == str(expected) and not unread(kept)
        assert kept.schedule.kernels == made.schedule.kernels


def test_a_walk_for_other_scalars_or_threads_is_made_anew() -> None:
    compiled, batch = step()
    compiled(*batch)
    program = compiled.programs[0]
    known = program.loaded.walk
    assert known.fits(known.scalars, 2) and known.scalars and not known.fits(frozenset(), 2)
    other = LoadedProgram(program.schedule, threads=2, known=known)
    assert other.walk.scalars == frozenset()
    assert not np.array_equal(other.tape.relocations, program.loaded.tape.relocations)


def test_more_shared_work_than_the_walk_was_made_for(monkeypatch: pytest.MonkeyPatch) -> None:
    compiled, batch = step()
    compiled(*batch)
    program = compiled.programs[0]
    known, scalars = program.loaded.walk, program.loaded.walk.scalars
    assert known.serial and "barrier" not in str(known.tape)
    monkeypatch.setattr(walk, "SERIAL_NS", 0)
    assert not known.fits(scalars, 2) and known.fits(scalars, 1)
    other = LoadedProgram(program.schedule, scalars=scalars, threads=2, known=known)
    assert not other.walk.serial and "barrier" in str(other.tape)


def test_rows_of_a_walk_are_the_walk(tmp_path: Path) -> None:
    compiled, batch = step()
    compiled(*batch)
    loaded = compiled.programs[0].loaded
    with flags.override(cache_dir=str(tmp_path)):
        assert load_plan(KEY) is None
        store_plan(KEY, Plan(loaded.schedule, loaded.walk))
        found = load_plan(KEY)
        store_plan(KEY, Plan(loaded.schedule, None))
        without = load_plan(KEY)
    assert found is not None and found.walk is not None
    assert found.walk.to_row() == loaded.walk.to_row()
    assert without is not None and without.walk is None
    assert without.schedule.kernels == loaded.schedule.kernels


@pytest.mark.parametrize("damage", ["cut", "changed", "of another key"])
def test_a_damaged_plan_is_made_again(
    tmp_path: Path, damage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with flags.override(cache_dir=str(tmp_path)):
        first, batch = step()
        expected = first(*batch).item()
        [path] = tmp_path.glob("*.plan")
        whole = path.read_bytes()
        middle = len(whole) // 2
        path.write_bytes({
            "cut": whole[:middle],
            "changed": whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :],
            "of another key": whole[:16] + KEY + whole[48:],
        }[damage])  # fmt: skip
        monkeypatch.setattr("graphflow.runtime.folder._warned", set())
        again, batch = step()
        with pytest.warns(gf.errors.CacheWarning, match="damaged or foreign"):
            assert again(*batch).item() == expected
        assert path.read_bytes() == whole


def test_plans_of_other_versions_of_python_are_not_looked_at(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    graph = gf.trace(lambda x: x + 1, gf.TensorSpec((3,)))
    ours = plans.plan_key(graph, 2, {})
    monkeypatch.setattr(plans.sys.implementation, "cache_tag", "cpython-399")
    assert plans.plan_key(graph, 2, {}) != ours


def test_plans_of_other_laws_are_not_taken(tmp_path: Path) -> None:
    def run(x: gf.Tensor) -> gf.Tensor:
        return (-x).neg() * 3

    x = gf.tensor([1.0, -2.0])
    wrong = laws.Law("neg(neg(%x))", lambda node, bound: node.inputs[0])
    with flags.override(cache_dir=str(tmp_path)):
        with laws.laws_in_force((wrong,)):
            planted = gf.compile(run)
            assert planted(x).tolist() == [-3, 6]
        planted.programs[0].save(tmp_path / "planted.gf")
        right = gf.compile(run)
        assert right(x).tolist() == [3, -6]
        assert gf.load_program(tmp_path / "planted.gf")(x).tolist() == [3, -6]
        with laws.laws_in_force((wrong,)):
            assert gf.compile(run)(x).tolist() == [-3, 6]
        with laws.laws_in_force(()):
            assert gf.compile(run)(x).tolist() == [3, -6]
        right.programs[0].save(tmp_path / "right.gf")
        assert gf.load_program(tmp_path / "right.gf")(x).tolist() == [3, -6]


def test_constants_and_sizes_that_are_nought_are_kept(tmp_path: Path) -> None:
    empty, table = gf.zeros(0, 3).numpy(), np.arange(12.0).reshape(3, 4)

    def run(x: gf.Tensor) -> gf.Tensor:
        return gf.cat([x, gf.tensor(empty)]) @ gf.tensor(table)

    x = gf.randn(5, 3, dtype=gf.float64)
    with flags.override(cache_dir=str(tmp_path)):
        for _ in range(2):
            found = gf.compile(run)(x).numpy()
            np.testing.assert_allclose(found, x.numpy() @ table, rtol=1e-12)


def test_python_kernels_neither_read_nor_leave_plans(tmp_path: Path) -> None:
    with flags.override(cache_dir=str(tmp_path), disable_jit=True):
        assert gf.compile(lambda x: x * 2)(gf.ones(3)).tolist() == [2, 2, 2]
        assert not list(tmp_path.glob("*.plan"))
