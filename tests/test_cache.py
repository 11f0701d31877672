"""The kernel cache: what it finds, what it refuses, and that trouble never stops a program."""

from __future__ import annotations

import os
import re
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from kernel_calls import call

from graphflow import flags
from graphflow.codegen.plain import raise_failure
from graphflow.codegen.schedule import KernelSource
from graphflow.errors import CacheWarning, CompileError
from graphflow.runtime import cache, compiler_files
from graphflow.runtime import folder as folder_module
from graphflow.runtime.compiler_files import ROOTS, contents_digest, module_files
from tests.threads import in_threads

REPOSITORY = Path(__file__).resolve().parent.parent
posix = pytest.mark.skipif(os.name != "posix", reason="owners and modes are POSIX's")


def kernel(number: int) -> KernelSource:
    """A kernel that stores ``number``."""
    lines = (
        "from graphflow.codegen.prelude import kernel, pointer_i64",
        "@kernel",
        f"def store_{number}(args, tid, nth):",
        "    out = pointer_i64(args, 0)",
        f"    out[0] = {number}",
        "",
    )
    return KernelSource(f"store_{number}", "\n".join(lines))


def check(loaded: cache.Loaded) -> None:
    """Every loaded kernel does what its name says."""
    for name, address in loaded.addresses.items():
        out = np.zeros(1, np.int64)
        call(address, out)
        assert out[0] == int(name.split("_")[1])


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A cache folder of its own, and a process that has linked nothing and warned of nothing."""
    forget(monkeypatch)
    with flags.override(cache_dir=str(tmp_path / "kernels")):
        yield tmp_path / "kernels"


def forget(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a new process would see it."""
    monkeypatch.setattr(cache, "_linked", {})
    monkeypatch.setattr(cache, "_plain", {})
    monkeypatch.setattr(folder_module, "_warned", set())
    monkeypatch.setattr(cache, "_hits", 0)
    monkeypatch.setattr(cache, "_misses", 0)


def test_first_compiled_then_remembered_then_read(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kernels = [kernel(1), kernel(2)]
    first = cache.load(kernels)
    check(first)
    assert (first.hits, first.misses, sorted(first.compile_seconds)) == (
        0,
        2,
        ["store_1", "store_2"],
    )
    again = cache.load(kernels)
    assert (again.hits, again.misses, again.addresses) == (2, 0, first.addresses)
    forget(monkeypatch)
    from_disk = cache.load([*kernels, kernel(3)])
    check(from_disk)
    assert (from_disk.hits, from_disk.misses, list(from_disk.compile_seconds)) == (
        2,
        1,
        ["store_3"],
    )
    assert cache.statistics() == cache.Statistics(2, 1, folder, cache.size())


def test_sources_lie_readable_beside_the_objects(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = cache.load([kernel(4)])
    assert loaded.paths["store_4"].parent == folder
    assert loaded.paths["store_4"].read_text() == kernel(4).source
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    loaded.paths["store_4"].unlink()
    forget(monkeypatch)
    again = cache.load([kernel(4)])
    assert again.hits == 1
    assert again.paths["store_4"].exists(), "who asks for paths can read what is there"


def test_a_second_process_compiles_nothing_and_does_not_import_numba(folder: Path) -> None:
    kernels = [kernel(n) for n in range(5)]
    cache.load(kernels)
    program = (
        "import sys\n"
        "from test_cache import cache, check, kernel\n"
        "loaded = cache.load([kernel(n) for n in range(5)])\n"
        "check(loaded)\n"
        "print(loaded.hits, loaded.misses, 'numba' in sys.modules)\n"
    )
    assert run_process(program, folder) == "5 0 False"


def run_process(program: str, folder: Path) -> str:
    return finish(start_process(program, folder))


def start_process(program: str, folder: Path) -> subprocess.Popen[str]:
    path = os.pathsep.join([str(REPOSITORY), str(REPOSITORY / "tests")])
    environment = {**os.environ, "PYTHONPATH": path, "GRAPHFLOW_CACHE_DIR": str(folder)}
    return subprocess.Popen(
        [sys.executable, "-W", "error", "-c", program],
        env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def finish(process: subprocess.Popen[str]) -> str:
    output, trouble = process.communicate(timeout=300)
    assert process.returncode == 0, trouble
    return output.strip()


def object_file(folder: Path) -> Path:
    (path,) = folder.glob("*.o")
    return path


def damage_truncate(data: bytes) -> bytes:
    return data[: len(data) // 2]


def damage_flip(data: bytes) -> bytes:
    return data[:-100] + bytes([data[-100] ^ 1]) + data[-99:]


def damage_extend(data: bytes) -> bytes:
    return data + b"more"


def damage_empty(data: bytes) -> bytes:
    return b""


def damage_unpacked(data: bytes) -> bytes:
    return data[folder_module.HEADER :]


@pytest.mark.parametrize(
    "damage", [damage_truncate, damage_flip, damage_extend, damage_empty, damage_unpacked]
)
def test_a_damaged_object_is_compiled_again_with_one_warning(
    folder: Path, monkeypatch: pytest.MonkeyPatch, damage: object
) -> None:
    assert callable(damage)
    cache.load([kernel(6)])
    path = object_file(folder)
    intact = path.read_bytes()
    path.write_bytes(damage(intact))
    forget(monkeypatch)
    with pytest.warns(CacheWarning, match="damaged or foreign") as caught:
        loaded = cache.load([kernel(6)])
    assert len(caught) == 1
    assert path.name in str(caught[0].message)
    check(loaded)
    assert loaded.misses == 1
    assert path.read_bytes() == intact, "the file was not mended"
    forget(monkeypatch)
    assert cache.load([kernel(6)]).hits == 1


def test_another_kernels_object_under_this_name_is_refused(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache.load([kernel(7)])
    path = object_file(folder)
    path.write_bytes(folder_module.pack(b"x" * 32, path.read_bytes()[folder_module.HEADER :]))
    forget(monkeypatch)
    with pytest.warns(CacheWarning, match="damaged or foreign"):
        check(cache.load([kernel(7)]))


def test_many_damaged_files_give_one_warning(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kernels = [kernel(n) for n in range(3)]
    cache.load(kernels)
    for path in folder.glob("*.o"):
        path.write_bytes(b"")
    forget(monkeypatch)
    with pytest.warns(CacheWarning) as caught:
        check(cache.load(kernels))
    assert len(caught) == 1


@posix
def test_a_folder_others_may_write_to_is_not_trusted(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache.load([kernel(8)])
    for mode in (0o770, 0o707, 0o777):
        folder.chmod(mode)
        forget(monkeypatch)
        with pytest.warns(CacheWarning, match="written to by others") as caught:
            loaded = cache.load([kernel(8)])
            cache.load([kernel(9)])
        assert len(caught) == 1
        check(loaded)
        assert loaded.misses == 1
    folder.chmod(0o755)
    forget(monkeypatch)
    assert cache.load([kernel(8)]).hits == 1


@posix
def test_another_users_folder_is_not_trusted(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache.load([kernel(8)])
    forget(monkeypatch)
    stranger = os.getuid() + 1
    monkeypatch.setattr(cache.os, "getuid", lambda: stranger)
    with pytest.warns(CacheWarning, match="another user"):
        loaded = cache.load([kernel(8)])
    assert loaded.misses == 1
    check(loaded)


def test_a_folder_that_cannot_be_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    forget(monkeypatch)
    with flags.override(cache_dir=str(tmp_path / "file" / "kernels")):
        with pytest.warns(CacheWarning, match="cannot be used") as caught:
            check(cache.load([kernel(10)]))
            check(cache.load([kernel(11)]))
            assert cache.size() == 0
            assert cache.clear() == 0
    assert len(caught) == 1


@pytest.mark.parametrize("number", ["ENOSPC", "EROFS", "EACCES"])
def test_a_full_or_read_only_disk(
    folder: Path, monkeypatch: pytest.MonkeyPatch, number: str
) -> None:
    import errno

    def refuse(self: Path, data: bytes) -> int:
        raise OSError(getattr(errno, number), os.strerror(getattr(errno, number)))

    monkeypatch.setattr(Path, "write_bytes", refuse)
    with pytest.warns(CacheWarning, match="cannot be written") as caught:
        check(cache.load([kernel(12)]))
        check(cache.load([kernel(13)]))
    assert len(caught) == 1
    assert list(folder.iterdir()) == []


def test_a_write_that_fails_midway_leaves_nothing(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: Path, target: Path) -> Path:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", refuse)
    with pytest.warns(CacheWarning, match="No space left"):
        check(cache.load([kernel(14)]))
    assert list(folder.iterdir()) == []


def test_the_key_covers_what_the_code_depends_on(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = kernel(15)
    keys = {
        cache.kernel_key(base),
        cache.kernel_key(KernelSource(base.name, base.source + "# note\n")),
        cache.kernel_key(KernelSource(base.name, base.source, epilogue=True)),
        cache.kernel_key(KernelSource("renamed", base.source)),
    }
    with flags.override(cpu_features="sse4.2"):
        keys.add(cache.kernel_key(base))
    for function in ("version_of", "helpers_digest"):
        cache._environment.cache_clear()
        with monkeypatch.context() as patch:
            patch.setattr(cache, function, lambda *_: b"another")
            keys.add(cache.kernel_key(base))
        cache._environment.cache_clear()
    assert len(keys) == 7
    assert cache.kernel_key(base) in keys


def test_the_helpers_digest_sees_every_vocabulary_module(tmp_path: Path) -> None:
    known = dict(module_files())
    before = contents_digest(ROOTS, known)
    for module in ("plain", "pointers", "intrinsics", "llvm_expr", "vector_math", "frontend",
                   "maths.exponential", "maths.philox", "target", "ir.formulas.gamma",
                   "ir.formulas.maths"):  # fmt: skip
        name = f"graphflow.{module if module.startswith('ir.') else f'codegen.{module}'}"
        changed = tmp_path / "changed.py"
        changed.write_text(Path(known[name]).read_text() + "\n# changed\n")
        assert contents_digest(ROOTS, {**known, name: str(changed)}) != before, name
    unrelated = {**known, "graphflow.codegen.build_schedule": str(changed)}
    assert contents_digest(ROOTS, unrelated) == before


def test_the_helpers_digest_is_remembered_until_a_file_changes(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = []
    monkeypatch.setattr(
        compiler_files, "contents_digest", lambda *_: read.append(1) or bytes([len(read)])
    )
    asked = compiler_files.helpers_digest.__wrapped__  # as a fresh process would
    assert [asked(ROOTS), asked(ROOTS)] == [b"\1", b"\1"]
    monkeypatch.setattr(compiler_files, "compiler_digest", lambda: b"a file is newer")
    assert asked(ROOTS) == b"\2"
    assert asked(("graphflow.codegen.plain",)) == b"\3"


def test_the_least_recently_used_go_first(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache.load([kernel(n) for n in range(20, 24)])
    one = cache.size() // 4
    now = time.time()
    for age, number in enumerate((22, 20, 23, 21)):  # 21 was used longest ago
        for path in folder.glob(f"store_{number}-*"):
            os.utime(path, (now - 7200 * (age + 1),) * 2)
    forget(monkeypatch)
    cache.load([kernel(21)])  # a hit renews it
    orphan = folder / ".store_1-0123456789abcdef.o.1f.2f.3f.tmp"
    orphan.write_bytes(b"left by a killed process")
    os.utime(orphan, (now - 86400,) * 2)
    with flags.override(cache_limit=int(one * 3.6)):
        cache.load([kernel(24)])
    left = {re.split("[_-]", path.name)[1] for path in folder.glob("*.o")}
    assert {"24", "21"} <= left
    assert "23" not in left
    assert cache.size() <= one * 3.6
    assert not orphan.exists()


def test_clear_removes_only_the_caches_own_files(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = cache.load([kernel(30)])
    mine = folder / "my_script.py"
    mine.write_text("print()")
    size = cache.size()
    assert size > 0
    others = len(list(folder.iterdir())) - 1  # more than two where this process knew nothing yet
    assert cache.clear() == others >= 2
    assert cache.size() == 0
    assert mine.exists()
    check(loaded)
    forget(monkeypatch)
    assert cache.load([kernel(30)]).misses == 1


def test_concurrent_processes_share_one_empty_cache(folder: Path) -> None:
    program = (
        "from test_cache import cache, check, kernel\n"
        "loaded = cache.load([kernel(n) for n in range(40, 46)])\n"
        "check(loaded)\n"
        "print(loaded.hits + loaded.misses)\n"
    )
    processes = [start_process(program, folder) for _ in range(3)]
    assert [finish(process) for process in processes] == ["6"] * 3
    assert len(list(folder.glob("*.o"))) == 6
    assert not list(folder.glob("*.tmp")) + list(folder.glob(".*"))


def test_concurrent_threads_compile_each_kernel_once(folder: Path) -> None:
    results = in_threads(4, lambda number: cache.load([kernel(50), kernel(51)]))
    assert sum(result.misses for result in results) == 2
    for result in results:
        check(result)


@posix
def test_a_forked_child_loads_kernels(folder: Path) -> None:
    cache.load([kernel(60), kernel(61)])
    program = (
        "import os, threading\n"
        "from test_cache import cache, check, kernel\n"
        "check(cache.load([kernel(60)]))\n"
        "cache._lock.acquire()\n"
        "child = os.fork()\n"
        "if child == 0:\n"
        "    thread = threading.Thread(target=lambda: check(cache.load([kernel(61)])))\n"
        "    thread.daemon = True\n"
        "    thread.start()\n"
        "    thread.join(20)\n"
        "    os._exit(thread.is_alive())\n"
        "print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))\n"
    )
    assert run_process(program, folder) == "0"


def test_plain_kernels_stand_in_when_compilation_is_disabled(folder: Path) -> None:
    with flags.override(disable_jit=True):
        loaded = cache.load([kernel(70)])
        check(loaded)
        raise_failure()
    assert loaded.misses == 0
    assert not list(folder.glob("*.o"))
    assert loaded.paths["store_70"].exists()


def test_two_kernels_of_one_name_are_an_error(folder: Path) -> None:
    other = KernelSource("store_1", kernel(1).source + "# other\n")
    with pytest.raises(CompileError, match="one name: store_1"):
        cache.load([kernel(1), other])


def test_a_kernel_that_does_not_compile_names_its_file(folder: Path) -> None:
    bad = KernelSource("bad", kernel(1).source.replace("store_1", "bad").replace("0)", "tid)"))
    with pytest.raises(CompileError, match=rf"{re.escape(str(folder))}/bad-[0-9a-f]+\.py"):
        cache.load([bad])
    assert "pointer_i64(args, tid)" in next(folder.glob("bad-*.py")).read_text()


def test_where_the_cache_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with flags.override(cache_dir=None):
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
        assert cache.default_folder() == tmp_path / "graphflow"
        monkeypatch.setenv("XDG_CACHE_HOME", "relative")
        monkeypatch.setenv("HOME", str(tmp_path))
        assert cache.default_folder() == tmp_path / ".cache" / "graphflow"


def test_kernels_are_compiled_while_others_are_still_asked_for(folder: Path) -> None:
    interval = sys.getswitchinterval()
    batch = cache.Batch(lambda: [kernel(52)])
    batch.ask([kernel(50)])
    batch.ask([kernel(51), kernel(50)])
    loaded = cache.load([kernel(50), kernel(51)], batch=batch)
    check(loaded)
    assert (loaded.hits, loaded.misses) == (0, 2)
    assert sorted(loaded.compile_seconds) == ["store_50", "store_51"]
    assert loaded.seconds >= batch.seconds > 0
    assert cache.load([kernel(52)]).misses == 0  # the companion came along
    assert sys.getswitchinterval() == interval


def test_a_batch_that_nobody_waits_for_leaves_nothing_behind(folder: Path) -> None:
    interval, threads = sys.getswitchinterval(), threading.active_count()
    batch = cache.Batch()
    batch.ask([kernel(53)])
    broken = KernelSource("broken", "def broken(args):\n    return 1\n")
    with pytest.raises(CompileError, match="broken"):
        batch.ask([broken])
    batch.close()
    batch.close()
    assert sys.getswitchinterval() == interval
    assert threading.active_count() <= threads
    check(cache.load([kernel(53)]))


def test_a_few_short_kernels_come_first_and_then_the_longest() -> None:
    kernels = [KernelSource(f"k{size}", "#" * size) for size in (5, 9, 2, 7, 4, 1)]
    lengths = [len(kernel.source) for kernel in cache._order(kernels)]
    assert lengths == [1, 2, 4, 9, 7, 5]
    assert [len(kernel.source) for kernel in cache._order(kernels[:2])] == [5, 9]
