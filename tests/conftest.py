"""Options and fixtures that several test files share."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any
from zlib import crc32

import numpy as np
import pytest
from hypothesis import HealthCheck, settings

import graphflow as gf
from graphflow.backends import cpu

GOLDEN = Path(__file__).parent / "golden"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--update-golden", action="store_true", help="rewrite the files in tests/golden"
    )


def pytest_configure() -> None:
    """Eager code is what compiled code is compared with: NumPy's, whatever the cache has."""
    cpu.eager_kernels = False
    # How long an example takes says how busy the machine is, nothing else.
    settings.register_profile("busy", deadline=None, suppress_health_check=[HealthCheck.too_slow])
    settings.load_profile("busy")
    gf.manual_seed(0)  # for what is drawn while modules are imported


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Iterator[None]:
    """Tests are half a million objects that stay: one collection in the end sees them grow old.

    They are not frozen: few objects would be left, a quarter more of which soon has all looked at.
    """
    gc.disable()
    yield
    gc.collect()
    gc.enable()


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Function) -> None:
    """Every test draws numbers of its own, whatever ran in the process before it."""
    seed_all(item.module, item.nodeid)


@pytest.hookimpl(wrapper=True)
def pytest_fixture_setup(fixturedef: Any, request: Any) -> Iterator[object]:
    """So does a fixture that several tests share, whichever of them comes first."""
    if fixturedef.scope not in ("module", "class"):
        return (yield)
    held = gf.get_rng_state(), [g.bit_generator.state for g in generators(request.module)]
    seed_all(request.module, f"{request.module.__name__} {fixturedef.argname}")
    made = yield
    gf.set_rng_state(held[0])
    for generator, state in zip(generators(request.module), held[1], strict=True):
        generator.bit_generator.state = state
    return made


def seed_all(module: ModuleType, name: str) -> None:
    """Seed GraphFlow's generator and those of a module from a name."""
    seed = crc32(name.encode())
    gf.manual_seed(seed)
    for generator in generators(module):
        generator.bit_generator.state = np.random.default_rng(seed).bit_generator.state


@cache
def generators(module: ModuleType) -> list[np.random.Generator]:
    """NumPy's generators that tests of a module share."""
    return [value for value in vars(module).values() if isinstance(value, np.random.Generator)]


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> Callable[[str, str], None]:
    """``golden(name, text)``: ``text`` equals the file ``tests/golden/<name>``.

    With ``--update-golden`` the file is written instead; read the difference
    before you commit it.
    """
    update = request.config.getoption("--update-golden")

    def check(name: str, text: str) -> None:
        path = GOLDEN / name
        if update:
            path.parent.mkdir(exist_ok=True)
            path.write_text(text)
        assert path.exists(), f"{path} is missing; run pytest --update-golden and look at it"
        assert text == path.read_text(), f"differs from {path}; see --update-golden"

    return check
