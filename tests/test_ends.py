"""Which rank of a job ended first, and how: found also when all have ended before one looks."""

import os
import subprocess
import sys
import threading

import pytest

from graphflow.distributed.board import Board, Stage
from graphflow.distributed.ends import Ends

pytestmark = pytest.mark.skipif(not Ends.can_be_known(), reason="this system does not tell")


def processes(board, ranks):
    """Processes that stand for the ranks of a job, and whoever waits for them to end."""
    Board.create(board, ranks)
    made = []
    for rank in range(ranks):
        made.append(subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE))
        Board(board, rank, ranks)._own["pid"] = made[-1].pid
    return made


def end(process, code=None):
    if code is None:
        process.kill()
    process.communicate()  # its input has ended: an error, status 1
    return process.returncode


@pytest.mark.parametrize("first", [0, 2])
@pytest.mark.parametrize("code", [None, 1])
def test_the_first_of_ends_that_are_all_there_is_named(tmp_path, first, code):
    made = processes(tmp_path / "board", 4)
    ends, over = Ends(tmp_path / "board", 4), threading.Event()
    ends._open_missing()
    assert ends.first is None and ends.failed() == (None, None)
    status = end(made[first], code)
    for rank in (3, 1, 0, 2):
        end(made[rank])
    over.set()
    ends.watch(over)
    assert ends.first is not None and ends.first.rank == first
    entry, how = ends.failed()
    assert entry == ends.first and how in (status, None)  # None: before Linux 6.15
    ends.close()


@pytest.mark.parametrize("killed", [None, 1])
def test_ranks_at_their_end_are_not_missed_unless_they_die_there(tmp_path, killed):
    made = processes(tmp_path / "board", 2)
    ends, over = Ends(tmp_path / "board", 2), threading.Event()
    ends._open_missing()
    for rank, process in enumerate(made):
        board = Board(tmp_path / "board", rank, 2)
        board._own["pid"] = process.pid
        board.stage(Stage.ENDED)
        if rank == killed:
            end(process)
        else:
            process.communicate(b"\n")
    over.set()
    ends.watch(over)
    assert ends.first is None
    entry, how = ends.failed()
    named = None if entry is None else entry.rank
    assert (named, how) in ((killed, None if killed is None else -9), (None, None))
    ends.close()


def test_a_rank_waits_until_it_is_watched(tmp_path):
    Board.create(tmp_path / "board", 1)
    board = Board(tmp_path / "board", 0, 1)
    ends, over = Ends(tmp_path / "board", 1), threading.Event()
    thread = threading.Thread(target=ends.watch, args=(over,))
    thread.start()
    board.await_watcher()
    assert board._own["watched"] == 1 and ends._descriptors
    over.set()
    thread.join()
    ends.close()
    assert board._own["pid"] == os.getpid()


def test_ranks_that_are_many_collectives_apart_do_not_take_one_for_another(tmp_path):
    """A model of more tensors than the board keeps: all broadcasts begin before any is over."""
    Board.create(tmp_path / "board", 2)
    ahead, behind = (Board(tmp_path / "board", rank, 2) for rank in range(2))
    for number in range(1, 151):
        assert ahead.come_to(f"broadcast of f32[{number}]") == number
    for number in range(1, 101):
        behind.come_to(f"broadcast of f32[{number}]")
    assert [n for n in range(1, 151) if ahead.astray(n) or behind.astray(n)] == []
    behind.come_to("barrier")
    assert ahead.astray(101) == (1, "barrier")
    assert behind.astray(101) == (0, "broadcast of f32[101]")
