"""Worker processes of the DataLoader: the same batches, and no hangs or leaks on any path."""

import gc
import multiprocessing
import os
import pathlib
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import graphflow as gf
from graphflow import nn, optim
from graphflow.utils.data import (
    DataLoader,
    Dataset,
    IterableDataset,
    StackDataset,
    TensorDataset,
    get_worker_info,
)
from tests.front import linear, ramp, training_step

ROOT = pathlib.Path(__file__).parent.parent


class Rows(Dataset[Any]):
    """Sample i: an array, a dict and a string that depend on i alone."""

    def __init__(self, size: int = 23) -> None:
        self.size = size

    def __getitem__(self, index: int) -> Any:
        rng = np.random.default_rng(index)
        return rng.random((3, 4)), {"label": index, "empty": np.zeros((0, 2))}, str(index)

    def __len__(self) -> int:
        return self.size


class Stream(IterableDataset[int]):
    """The numbers below a limit, shared out among the workers."""

    def __iter__(self) -> Iterator[int]:
        info = get_worker_info()
        start, step = (0, 1) if info is None else (info.id, info.num_workers)
        return iter(range(start, 17, step))


class Draws(Dataset[Any]):
    """Sample i is what every generator gives."""

    def __getitem__(self, index: int) -> Any:
        import random

        info = get_worker_info()
        assert info is not None and info.dataset is not None
        return [gf.rand(1).item(), random.random(), float(np.random.rand()), info.seed, info.id]

    def __len__(self) -> int:
        return 4


class Faulty(Dataset[int]):
    """Sample 3 does something bad."""

    def __init__(self, what: Any) -> None:
        self.what = what

    def __getitem__(self, index: int) -> int:
        if index == 3:
            self.what()
        return index

    def __len__(self) -> int:
        return 6


def flat(batch: Any) -> list[Any]:
    """A batch as nested lists, with dtypes."""
    if isinstance(batch, gf.Tensor):
        return [str(batch.dtype), tuple(batch.shape), batch.tolist()]
    if isinstance(batch, dict):
        return [[key, flat(value)] for key, value in batch.items()]
    if not isinstance(batch, (list, tuple)):
        return [batch]
    return [flat(part) if not isinstance(part, str) else part for part in batch]


def epoch(loader: Any) -> list[Any]:
    return [flat(batch) for batch in loader]


def children() -> list[str]:
    return [p.name for p in multiprocessing.active_children() if "loader" in p.name]


@pytest.fixture(autouse=True)
def nothing_is_left() -> Iterator[None]:
    yield
    if children():  # of a loader that is garbage
        gc.collect()
    assert children() == []


# ---- the same batches -------------------------------------------------------------------


@pytest.mark.parametrize("workers", [1, 3])
def test_workers_give_the_same_batches_in_the_same_order(workers: int) -> None:
    def epochs(count: int) -> list[Any]:
        gf.manual_seed(7)
        loader = DataLoader(Rows(), 4, shuffle=True, num_workers=count)
        return [epoch(loader), epoch(loader), gf.rand(2).tolist()]

    assert epochs(workers) == epochs(0)


@pytest.mark.parametrize("options", [{"batch_size": None}, {"drop_last": True, "batch_size": 5}])
def test_samples_and_last_batches(options: dict[str, Any]) -> None:
    here = DataLoader(Rows(), generator=1, **options)
    there = DataLoader(Rows(), generator=1, num_workers=2, **options)
    assert epoch(there) == epoch(here) and len(epoch(there)) == len(there)


def test_tensor_datasets_and_batches_can_be_written_to() -> None:
    data = TensorDataset(ramp(10, 3), gf.arange(10))
    for images, labels in DataLoader(data, 4, num_workers=2):
        images += 1
        assert labels.dtype == gf.int64
    assert epoch(DataLoader(data, 4, num_workers=2)) == epoch(DataLoader(data, 4))


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_other_start_methods(method: str) -> None:
    loader = DataLoader(Rows(9), 4, num_workers=2, multiprocessing_context=method)
    assert epoch(loader) == epoch(DataLoader(Rows(9), 4))


def test_streams_are_shared_out() -> None:
    got = [b.tolist() for b in DataLoader(Stream(), 2, num_workers=3)]
    assert sorted(n for batch in got for n in batch) == list(range(17))
    assert got[:3] == [[0, 3], [1, 4], [2, 5]] and got[-1] == [14]
    last = [b.tolist() for b in DataLoader(Stream(), 4, num_workers=3, drop_last=True)]
    assert last == [[0, 3, 6, 9], [1, 4, 7, 10], [2, 5, 8, 11]]


def test_persistent_workers_are_the_same_processes_and_numbers() -> None:
    fresh = DataLoader(Draws(), 2, num_workers=2, generator=5)
    kept = DataLoader(Draws(), 2, num_workers=2, generator=5, persistent_workers=True)
    for _ in range(2):
        assert epoch(kept) == epoch(fresh)
    pids = {p.pid for p in multiprocessing.active_children()}
    next(iter(kept))  # an epoch that is given up
    assert len(list(kept)) == 2
    assert {p.pid for p in multiprocessing.active_children()} == pids and len(pids) == 2
    del kept


def test_persistent_workers_of_a_loader_that_only_its_iterator_knows() -> None:
    batches = iter(DataLoader(Draws(), 2, num_workers=2, persistent_workers=True))
    gc.collect()
    pids = {p.pid for p in multiprocessing.active_children()}
    assert len(list(batches)) == 2 and len(pids) == 2
    del batches
    gc.collect()
    assert not pids & {p.pid for p in multiprocessing.active_children()}


def test_draws_differ_between_workers_and_epochs_and_follow_the_seed() -> None:
    def draws(seed: int) -> list[Any]:
        gf.manual_seed(seed)
        loader = DataLoader(Draws(), 1, num_workers=2)
        return [[v.item() for v in batch[:4]] for _ in range(2) for batch in loader]

    first = draws(1)
    assert first == draws(1) and first != draws(2)
    for column in zip(*first, strict=True):
        assert len(set(column)) >= 4, "a generator repeats itself across workers or epochs"


def test_worker_init_fn_and_options() -> None:
    seen = multiprocessing.get_context("fork").Array("i", 2)

    def init(worker: int) -> None:
        seen[worker] = worker + 10

    loader = DataLoader(
        Rows(8), 2, num_workers=2, worker_init_fn=init, prefetch_factor=1, in_order=False,
        multiprocessing_context="fork",
    )  # fmt: skip
    labels = sorted(n for _, d, _ in loader for n in d["label"].tolist())
    assert labels == list(range(8)) and list(seen) == [10, 11]


def test_stacked_datasets() -> None:
    rows, numbers = Rows(5), TensorDataset(gf.arange(5))
    pairs = StackDataset(rows, numbers)
    assert len(pairs) == 5 and pairs[2][0][2] == "2" and pairs[2][1][0].item() == 2
    named = StackDataset(a=rows, b=numbers)
    assert set(named[1]) == {"a", "b"}
    (batch,) = DataLoader(named, 5, num_workers=1)
    assert batch["b"][0].tolist() == [0, 1, 2, 3, 4] and batch["a"][2] == list("01234")
    with pytest.raises(ValueError, match=r"\[5, 6\]"):
        StackDataset(rows, Rows(6))
    with pytest.raises(ValueError, match="by position or by name"):
        StackDataset()


# ---- failures ---------------------------------------------------------------------------


class Odd(Exception):
    """Takes no single message."""

    def __init__(self, a: int, b: int) -> None:
        super().__init__(a, b)


def raises(error: Any) -> Any:
    def act() -> None:
        raise error

    return act


class Local(ValueError):
    pass


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (ValueError("bad row"), ValueError),
        (KeyError("bad row"), KeyError),
        (Odd(1, 2), RuntimeError),
        (StopIteration("bad row"), RuntimeError),
        (type("Unpicklable", (ValueError,), {})("bad row"), RuntimeError),
    ],
)
def test_an_error_is_raised_here_with_its_traceback(error: Any, kind: Any) -> None:
    loader = DataLoader(Faulty(raises(error)), 1, num_workers=2, multiprocessing_context="fork")
    batches = iter(loader)
    assert [next(batches).item() for _ in range(3)] == [0, 1, 2]
    with pytest.raises(kind, match=r"DataLoader worker process 1\.\nOriginal Traceback") as caught:
        next(batches)
    assert type(error).__name__ in str(caught.value) and "self.what()" in str(caught.value)
    assert [b.item() for b in batches] == [4, 5], "the iteration can go on"


def test_an_error_of_the_init_function() -> None:
    def init(worker: int) -> None:
        raise OSError("no database")

    loader = DataLoader(Rows(4), num_workers=1, worker_init_fn=init, multiprocessing_context="fork")
    with pytest.raises(OSError, match="no database"):
        list(loader)


def test_a_batch_that_cannot_be_sent() -> None:
    loader = DataLoader(
        Rows(2), num_workers=1, collate_fn=lambda b: lambda: b, multiprocessing_context="fork"
    )
    with pytest.raises(Exception, match="worker process 0"):
        list(loader)


def test_a_worker_that_is_killed() -> None:
    what = lambda: os.kill(os.getpid(), signal.SIGKILL)  # noqa: E731
    loader = DataLoader(Faulty(what), num_workers=2, multiprocessing_context="fork")
    with pytest.raises(RuntimeError, match=r"worker 1 .*killed by signal 9 \(SIGKILL\)"):
        list(loader)
    loader = DataLoader(Faulty(lambda: os._exit(3)), num_workers=2, multiprocessing_context="fork")
    with pytest.raises(RuntimeError, match=r"exited with code 3"):
        list(loader)


def test_timeout_and_a_worker_that_is_stuck() -> None:
    loader = DataLoader(
        Faulty(lambda: time.sleep(1000)), num_workers=2, timeout=0.5, multiprocessing_context="fork"
    )
    started = time.monotonic()
    with pytest.raises(RuntimeError, match=r"no batch within 0[.]5 seconds"):
        list(loader)
    assert time.monotonic() - started < 300


def test_an_early_break_ends_the_workers() -> None:
    for batch in DataLoader(Rows(1000), 1, num_workers=2):
        assert batch[2] == ["0"]
        break
    del batch
    assert children() == []


def test_full_pipes_do_not_block_anybody() -> None:
    big = TensorDataset(gf.zeros(64, 300_000))  # a batch is larger than any pipe
    loader = DataLoader(big, 8, num_workers=2, prefetch_factor=3)
    assert sum(batch[0].shape[0] for batch in loader) == 64
    next(iter(loader))


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="reads /proc")
def test_no_pipe_stays_open() -> None:
    def count() -> int:
        gc.collect()
        return len(os.listdir("/proc/self/fd"))

    loader = DataLoader(Rows(6), 2, num_workers=2)
    list(loader)
    before = count()
    list(loader)
    next(iter(loader))
    assert count() == before


# ---- beside everything else ---------------------------------------------------------------


def test_workers_after_and_around_compiled_steps() -> None:
    model = nn.Sequential(linear())
    step = training_step(model, optim.SGD(model.parameters(), lr=0.1), gf.compile)
    step(ramp(5, 4))
    busy = threading.Event()

    def spin() -> None:
        while not busy.is_set():
            step(ramp(5, 4))
            time.sleep(1e-4)

    thread = threading.Thread(target=spin)
    thread.start()
    try:
        double = gf.compile(lambda x: x * 2)
        double(gf.ones(3))
        collate = lambda batch: double(gf.ones(3) * batch[0])  # noqa: E731
        for _ in range(2):
            loader = DataLoader(
                range(6),
                num_workers=2,
                collate_fn=collate,
                multiprocessing_context="fork",  # type: ignore[arg-type]
            )
            assert [b.tolist()[0] for b in loader] == [0, 2, 4, 6, 8, 10]
    finally:
        busy.set()
        thread.join()


def script(tmp_path: pathlib.Path, body: str) -> subprocess.Popen[str]:
    """A Python process that runs ``body`` with a loader of 2 workers called ``loader``."""
    path = tmp_path / "script.py"
    path.write_text(
        textwrap.dedent(
            """
            import multiprocessing, os, signal, sys, time
            signal.signal(signal.SIGINT, signal.default_int_handler)  # our parent may ignore it
            from graphflow.utils.data import DataLoader, Dataset
            class Slow(Dataset):
                def __len__(self): return 10_000
                def __getitem__(self, i):
                    time.sleep(0.01)
                    return i
            def main():
                loader = DataLoader(Slow(), 1, num_workers=2, persistent_workers=True)
                batches = iter(loader)
                next(batches)
                print(*[p.pid for p in multiprocessing.active_children()], flush=True)
            """
        )
        + textwrap.indent(textwrap.dedent(body), "    ")
        + "\nif __name__ == '__main__':\n    main()\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        [sys.executable, str(path)], env=environment, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def gone(pids: list[int], seconds: float = 100.0) -> bool:
    """True when the processes have ended in time."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if not any(alive(pid) for pid in pids):
            return True
        time.sleep(0.05)
    return False


def alive(pid: int) -> bool:
    try:
        state = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except OSError:
        return False
    return state not in "ZX"


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="reads /proc")
@pytest.mark.parametrize("how", ["kill", "interrupt", "exit"])
def test_when_the_parent_goes_the_workers_go(tmp_path: pathlib.Path, how: str) -> None:
    body = "return" if how == "exit" else "for b in batches: pass"
    with script(tmp_path, body) as process:
        assert process.stdout is not None and process.stderr is not None
        pids = [int(pid) for pid in process.stdout.readline().split()]
        assert len(pids) == 2
        if how == "kill":
            process.kill()
        elif how == "interrupt":
            process.send_signal(signal.SIGINT)
        code = process.wait(100)
        errors = process.stderr.read()
    assert gone(pids)
    if how == "interrupt":
        assert "KeyboardInterrupt" in errors and errors.count("Traceback") == 1
    if how == "exit":
        assert code == 0 and errors == ""
