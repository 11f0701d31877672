"""What a type checker knows of the public names: all of them, though many are bound late."""

import subprocess
import sys
from pathlib import Path
from types import ModuleType

import graphflow as gf
from graphflow import nn, ops
from graphflow.nn import functional as F

REPOSITORY = Path(__file__).resolve().parent.parent
IMPORTS = "import graphflow as gf\nfrom graphflow import nn\nimport graphflow.nn.functional as F\n"
USE = """
model = nn.Sequential(nn.Linear(4, 3), nn.ReLU())
loss: gf.Tensor = F.cross_entropy(model(gf.randn(2, 4)), gf.randint(0, 3, (2,)))
wrong: str = gf.zeros(3)  # E: Tensor
nn.Linear("4", 3)  # E: int
"""


def public(namespace: ModuleType) -> list[str]:
    """The names a user sees: neither submodules nor what the module itself imports."""
    machinery = {"TYPE_CHECKING", "Any", "Gathering", "importer"}
    names = [n for n in dir(namespace) if not n.startswith("_") and n not in machinery]
    return [n for n in names if not isinstance(getattr(namespace, n), ModuleType)]


def test_every_public_name_is_known_and_mistakes_are_found(tmp_path: Path) -> None:
    ops.load_later()
    names = {"gf": public(gf), "nn": public(nn), "F": public(F), "gf.Tensor": dir(gf.Tensor)}
    names["gf"] += ["breakpoint", "print"]  # late, and not in __all__: they would hide Python's
    names["gf"] += [name for module in ops._loaded for name in module.__all__]
    assert {"zeros", "svd", "einsum"} <= set(names["gf"])
    lines = [f"{where}.{name}" for where, found in names.items() for name in found]
    text = IMPORTS + "\n".join(line for line in lines if "._" not in line) + USE
    script = tmp_path / "script.py"
    script.write_text(text)
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", str(script)],
        cwd=REPOSITORY, capture_output=True, text=True,
    )  # fmt: skip
    wanted = {i for i, line in enumerate(text.splitlines(), 1) if "# E:" in line}
    found = {}
    for line in done.stdout.splitlines()[:-1]:
        place, _, message = line.partition(": error: ")
        if message and "in __slots__ conflicts" not in message:  # gf.Tensor.name of the class
            found[int(place.rpartition(":")[2])] = message
    shown = {text.splitlines()[number - 1]: found[number] for number in found}
    assert set(found) == wanted, shown
    assert all(text.splitlines()[n - 1].partition("# E: ")[2] in found[n] for n in wanted), shown
