"""Flags: typed values, scoped overrides, and no silent misspelling."""

import os
import subprocess
import sys

import pytest

from graphflow import flags
from graphflow.errors import GraphFlowError


@pytest.fixture(autouse=True)
def _restore():
    yield
    flags.load({k: v for k, v in os.environ.items() if k.startswith(flags.PREFIX)})


def test_every_flag_has_its_default() -> None:
    flags.load({"PATH": "x"})
    assert [f.value for f in flags.FLAGS] == [f.default for f in flags.FLAGS]


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("DEBUG", "3", 3),
        ("CACHE_LIMIT", "2G", 2 << 30),
        ("CACHE_LIMIT", "4096", 4096),
        ("NUM_THREADS", "2", 2),
        ("NUM_THREADS", "", None),
        ("DISABLE_JIT", "1", True),
        ("DISABLE_JIT", "off", False),
        ("DEVICE", "cuda:1", "cuda:1"),
        ("DUMP", "/tmp/x", "/tmp/x"),
        ("CPU_FEATURES", "+avx2", "+avx2"),
    ],
)
def test_values_are_typed(name: str, text: str, value: object) -> None:
    flags.load({flags.PREFIX + name: text})
    assert getattr(flags, name).value == value


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("DEBUG", "6"),
        ("DEBUG", "verbose"),
        ("DEBUG", "²"),
        ("CACHE_LIMIT", "much"),
        ("CACHE_LIMIT", ""),
        ("NUM_THREADS", "0"),
        ("DISABLE_JIT", "maybe"),
        ("DEVICE", "tpu"),
        ("DEVICE", "cuda:"),
    ],
)
def test_a_bad_value_names_the_flag_and_what_it_takes(name: str, text: str) -> None:
    with pytest.raises(GraphFlowError, match=f"GRAPHFLOW_{name}=.*expected"):
        flags.load({flags.PREFIX + name: text})


def test_a_failed_load_changes_nothing() -> None:
    flags.load({"GRAPHFLOW_DEBUG": "2"})
    with pytest.raises(GraphFlowError):
        flags.load({"GRAPHFLOW_DEVICE": "cuda", "GRAPHFLOW_DEBUG": "9"})
    assert (flags.DEBUG.value, flags.DEVICE.value) == (2, "cpu")


def test_an_unknown_flag_is_an_error_with_a_suggestion() -> None:
    with pytest.raises(GraphFlowError, match="did you mean GRAPHFLOW_DEBUG"):
        flags.load({"GRAPHFLOW_DEBGU": "1"})
    with pytest.raises(GraphFlowError, match=r"the flags are .*GRAPHFLOW_DUMP"):
        flags.load({"GRAPHFLOW_XYZZY": "1"})


def test_overrides_are_scoped_and_nest() -> None:
    with flags.override(debug=3, disable_jit=True):
        assert (flags.DEBUG.value, flags.DISABLE_JIT.value) == (3, True)
        with pytest.raises(KeyError), flags.override(debug=5):
            assert flags.DEBUG.value == 5
            raise KeyError
        assert flags.DEBUG.value == 3
    assert (flags.DEBUG.value, flags.DISABLE_JIT.value) == (0, False)


def test_an_unknown_override_is_an_error() -> None:
    with pytest.raises(GraphFlowError, match="DEVICE"), flags.override(devise="cpu"):
        pass


def test_the_environment_is_checked_at_import() -> None:
    environment = {**os.environ, "GRAPHFLOW_DEBUGG": "1"}
    done = subprocess.run(
        [sys.executable, "-c", "import graphflow.flags"],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode != 0 and "did you mean GRAPHFLOW_DEBUG" in done.stderr
