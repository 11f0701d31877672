"""Jobs of several processes on MPI: numbers, collectives, and how they end."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

HERE = Path(__file__).parent
LIMIT = 600  # seconds after which a hang is a hang


def launch(ranks, script, *arguments, **environment):
    """The finished job: exit status, output and errors."""
    command = [sys.executable, "-m", "graphflow", "launch", "-n", str(ranks)]
    return subprocess.run(
        [*command, str(HERE / script), *map(str, arguments)],
        capture_output=True, text=True, timeout=LIMIT, env={**os.environ, **environment},
    )  # fmt: skip


def parameters(path):
    with np.load(path) as found:
        return {name: found[name] for name in found}


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """Parameters after 50 steps of one process that sees the whole batch."""
    out = tmp_path_factory.mktemp("alone") / "run"
    script = HERE / "job.py"
    subprocess.run([sys.executable, str(script), str(out)], check=True, timeout=LIMIT)
    return parameters(f"{out}-0.npz")


@pytest.mark.parametrize("options", [(), ("--eager",), ("--accumulate", 3)], ids=str)
@pytest.mark.parametrize("ranks", [1, 2, 4])
def test_ranks_train_as_one_process_with_the_same_batch(alone, tmp_path, ranks, options):
    done = launch(ranks, "job.py", tmp_path / "run", *options)
    assert done.returncode == 0, done.stderr
    assert sorted(done.stdout.splitlines()) == [
        f"rank {rank} of {ranks} with {max(1, len(os.sched_getaffinity(0)) // ranks)} threads done"
        for rank in range(ranks)
    ]
    first = parameters(tmp_path / "run-0.npz")
    for name, expected in alone.items():
        np.testing.assert_allclose(first[name], expected, rtol=1e-6, atol=1e-6, err_msg=name)
    for rank in range(1, ranks):
        other = parameters(tmp_path / f"run-{rank}.npz")
        assert all(np.array_equal(first[name], other[name]) for name in first)
    text = (tmp_path / "run.ir").read_text()
    found = re.findall(r"= (all_reduce\w*)\(", text)
    assert set(found) == ({"all_reduce_start", "all_reduce"} if ranks > 1 else set())
    assert len(found) >= 6 or ranks == 1, "the gradients travel in three buckets"


def test_eager_ranks_keep_equal_bits_whatever_their_caches_hold(tmp_path):
    """A rank that finds the optimiser's program takes it at the same step as one that has none."""
    options = ("--eager", "--steps", 1000, "--caches", tmp_path / "caches")
    for _ in range(2):
        shutil.rmtree(tmp_path / "caches" / "1", ignore_errors=True)
        done = launch(2, "job.py", tmp_path / "run", *options)
        assert done.returncode == 0, done.stderr
    first, other = (parameters(tmp_path / f"run-{rank}.npz") for rank in range(2))
    assert all(np.array_equal(first[name], other[name]) for name in first)


@pytest.mark.parametrize("ranks", [1, 2, 4])
def test_every_collective(ranks):
    done = launch(ranks, "collectives_job.py")
    assert done.returncode == 0, done.stderr
    assert sorted(done.stdout.splitlines()) == [f"rank {rank} agrees" for rank in range(ranks)]


@pytest.mark.parametrize("ranks", [2, 4])
def test_ranks_of_a_machine_add_up_in_shared_memory_or_say_why_not(ranks):
    done = launch(ranks, "carrier_job.py")
    assert done.returncode == 0, done.stderr
    said = f"between ranks: {ranks} ranks add up in memory that they share"
    assert sorted(done.stdout.splitlines()) == [f"{rank} {said}" for rank in range(ranks)]
    done = launch(ranks, "carrier_job.py", "apart")
    assert done.returncode == 0, done.stderr
    said = f"between ranks: MPI carries the sums of {ranks} ranks: no shared memory, rank 1: "
    assert all(said in line for line in done.stdout.splitlines())


@pytest.mark.parametrize(
    ("kind", "status", "message"),
    [
        ("kill", 137, r"rank 1 \(process \d+\) was killed by signal 9, SIGKILL"),
        ("raise", 1, "rank 1 raised ValueError: a worker is unhappy"),
        ("before", 1, r"rank \d raised ValueError: before joining"),
        ("exit", 7, "rank 1 ended with exit status 7"),
        ("vanish", 9, "rank 1 ended with exit status 9"),
        ("late", 1, r"rank 1 \(in all_reduce.*\) has not come to all_reduce .* for 10 s"),
        ("leave", 1, "rank 1 has ended, but rank 0 waits for it in all_reduce"),
        ("other", 1, "rank . is in (barrier|all_reduce.*) while rank . is in (barrier|all_reduce)"),
        ("shape", 1, r"rank . is in all_reduce of f32\[[38]\] while rank . is in all_reduce"),
        ("nan", 1, r"rank 1: NaN in gradient 1 of 2 of a bucket, f32\[2,3\]"),
        ("model", 1, r"rank 1 has another model than rank 0: weight"),
    ],
)
def test_one_clear_message_names_rank_and_cause(kind, status, message):
    done = launch(2, "unhappy_job.py", kind, 1)
    last = done.stderr.splitlines()[-1]
    assert last.startswith("graphflow launch: ") and re.search(message, last), done.stderr
    assert last.endswith("; the other ranks were stopped")
    assert done.returncode == status
    assert "done" not in done.stdout
    assert "BAD TERMINATION" not in done.stdout + done.stderr
    assert "MPI_Abort" not in done.stderr


def test_a_rank_that_dies_after_the_end_of_its_script_is_named():
    done = launch(2, "unhappy_job.py", "after", 1)
    assert done.stdout.split() == ["done", "done"] and done.returncode == 137, done.stderr
    (line,) = done.stderr.splitlines()
    assert re.search(r"rank 1 \(process \d+\) was killed by signal 9, SIGKILL", line)


def test_no_shared_memory_is_left_by_ranks_that_are_killed(tmp_path):
    script = tmp_path / "job.py"
    script.write_text(
        "import os, re, signal, graphflow.distributed as dist\n"
        "dist.init_process_group('mpi')\n"
        "print(*re.findall(r'/dev/shm/mpich\\w+', open('/proc/self/maps').read()), flush=True)\n"
        "dist.barrier()\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = launch(2, script)
    assert done.returncode == 137, done.stderr
    used = set(done.stdout.split())
    assert used and not [path for path in used if os.path.exists(path)]


@pytest.mark.parametrize(
    ("kind", "status", "message"),
    [
        ("kill", 137, r"rank 2 \(process \d+\) was killed by signal 9, SIGKILL"),
        ("vanish", 9, "rank 2 ended with exit status 9"),
    ],
)
def test_of_many_ranks_that_end_the_first_is_named(kind, status, message):
    done = launch(4, "unhappy_job.py", kind, 2)
    last = done.stderr.splitlines()[-1]
    assert re.search(message, last), done.stderr
    assert done.returncode == status


def test_one_rank_compiles_and_the_others_link(tmp_path):
    script = tmp_path / "job.py"
    script.write_text(
        "import graphflow as gf, graphflow.distributed as dist\n"
        "from graphflow.runtime import cache\n"
        "dist.init_process_group()\n"
        "gf.compile(lambda x: (x * 3.25).sin().sum())(gf.ones(70, 9))\n"
        "print(cache.statistics().misses)\n"
    )
    done = launch(2, script, GRAPHFLOW_CACHE_DIR=str(tmp_path / "cache"))
    misses = sorted(map(int, done.stdout.split()))
    assert misses[0] == 0 < misses[1], done.stderr


def test_wrong_use_is_one_line(tmp_path):
    for arguments, message in [
        (("-n", "0", HERE / "job.py"), "at least one rank"),
        (("-n", "2", tmp_path / "none.py"), "no such file"),
    ]:
        command = [sys.executable, "-m", "graphflow", "launch", *map(str, arguments)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT)
        assert done.returncode == 1 and message in done.stderr
        assert len(done.stderr.splitlines()) == 1
