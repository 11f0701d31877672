"""Names that are imported when asked for: found, listed, and not hidden by a module's name."""

import subprocess
import sys
from types import ModuleType

import pytest

from graphflow import nn
from graphflow.nn import functional as F
from graphflow.nn import modules


def fresh(program: str) -> str:
    """What ``program`` prints in a process of its own."""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert not done.returncode, done.stderr
    return done.stdout.strip()


def test_a_model_imports_the_layers_it_uses_only() -> None:
    shown = fresh(
        "import sys; from graphflow import nn; nn.Sequential(nn.Linear(2, 2), nn.ReLU());"
        "print(*sorted(m for m in sys.modules if m.startswith('graphflow.nn.modules.')))"
    )
    assert shown.split() == [
        f"graphflow.nn.modules.{name}" for name in ("activation", "containers", "linear")
    ]


def test_rare_functions_and_operations_wait_for_programs_that_use_them() -> None:
    shown = fresh(
        "import sys, graphflow as gf\n"
        "gf.nn.LSTM(2, 2)(gf.ones(1, 1, 2)); gf.softmax(gf.ones(2), 0)\n"
        "print(*(name in sys.modules for name in ('graphflow.functions.windows', 'fractions')))\n"
        "gf.hann_window\n"
        "print(*(name in sys.modules for name in ('graphflow.functions.windows', 'email')))"
    )
    assert shown.split() == ["False", "False", "True", "False"]


def test_every_layer_is_listed_and_found() -> None:
    assert {"Conv2d", "GRUCell", "Module", "Parameter", "functional"} <= set(nn.__all__)
    assert len(set(nn.__all__)) == len(nn.__all__)
    assert set(nn.__all__) <= set(dir(nn))
    assert {"DataParallel", "utils", "attention"} <= set(dir(nn))
    for name in nn.__all__:
        assert getattr(nn, name) is not None
    assert fresh("from graphflow.nn import *; print(Conv2d.__name__)") == "Conv2d"


def test_no_functional_form_is_hidden_by_the_module_it_is_in() -> None:
    """Importing ``package.name`` makes it an attribute of the package."""
    given = [name for name in dir(F) if not name.startswith("_")]
    dir(modules)
    subjects = {name for name, value in vars(F).items() if isinstance(value, ModuleType)}
    written = {"embedding", "linear", "dropout", "grid_sample", "mse_loss", "channel_shuffle"}
    assert written <= set(given)
    for name in written:
        assert callable(getattr(F, name)), name
    assert not subjects & {n for m in subjects for n in getattr(vars(F)[m], "__all__", ())}


@pytest.mark.parametrize("namespace", [nn, F, modules])
def test_a_name_that_nothing_has_is_refused(namespace: ModuleType) -> None:
    with pytest.raises(AttributeError, match="has no attribute 'lineear'"):
        _ = namespace.lineear
