"""``graphflow run``: PyTorch scripts unchanged, and one clear error for what is missing."""

from __future__ import annotations

import os
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parent.parent

REGRESSION = """
import argparse
import torch
import torch.nn as nn
import torch.nn.functional as F
import torch.backends.cudnn as cudnn
from torch import optim
from torch.optim.lr_scheduler import StepLR
from torch.utils.data import DataLoader, TensorDataset
import helper

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc1 = nn.Linear(3, 16)
        self.fc2 = nn.Linear(16, 1)

    def forward(self, x):
        return self.fc2(torch.tanh(self.fc1(x)))

@torch.no_grad()
def evaluate(model, x, y):
    return F.mse_loss(model(x), y).item()

def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--epochs", type=int, default=1)
    args = parser.parse_args()
    cudnn.benchmark = True
    torch.manual_seed(0)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    x = torch.randn(64, 3, dtype=torch.float32, device=device)
    y = helper.target(x)
    model = Net().to(device)
    optimizer = optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    scheduler = StepLR(optimizer, step_size=30, gamma=0.5)
    before = evaluate(model, x, y)
    for epoch in range(args.epochs):
        for xb, yb in DataLoader(TensorDataset(x, y), batch_size=16, shuffle=True):
            optimizer.zero_grad()
            loss = F.mse_loss(model(xb.to(device)), yb)
            loss.backward()
            optimizer.step()
        scheduler.step()
    print("improved", evaluate(model, x, y) < 0.1 * before, isinstance(x, torch.Tensor))
    assert __name__ == "__main__" and "+graphflow" in torch.__version__

if __name__ == "__main__":
    main()
"""


def run(folder: pathlib.Path, script: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """``graphflow run`` on a script in ``folder``, in a process of its own."""
    (folder / "script.py").write_text(script)
    return subprocess.run(
        [sys.executable, "-m", "graphflow", "run", str(folder / "script.py"), *arguments],
        capture_output=True,
        text=True,
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        timeout=300,
    )


def test_an_ordinary_training_script_runs_unchanged(tmp_path: pathlib.Path) -> None:
    (tmp_path / "helper.py").write_text(
        "import torch\n\ndef target(x):\n    return x.sum(dim=1, keepdim=True).sin()\n"
    )
    done = run(tmp_path, REGRESSION, "--epochs", "40")
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["improved", "True", "True"]


@pytest.mark.parametrize(
    ("line", "name"),
    [
        ("torch.no_such_function(1)", "torch.no_such_function"),
        ("torch.nn.NoSuchLayer()", "torch.nn.NoSuchLayer"),
        ("torch.zeros(2).no_such_method()", "torch.Tensor.no_such_method"),
        ("from torch.nn import NoSuchLayer", "torch.nn.NoSuchLayer"),
        ("from torch import no_such", "torch.no_such"),
        ("import torch.no_such.module", "torch.no_such"),
        ("import torch.utils.no_such as n", "torch.utils.no_such"),
        ("import torchvision.no_such", "torchvision.no_such"),
        ("torch.cell", "torch.cell"),
    ],
)
def test_what_is_missing_is_one_line_that_names_it_and_the_place(
    tmp_path: pathlib.Path, line: str, name: str
) -> None:
    done = run(tmp_path, f"import torch\n\nprint('begun')\n{line}\n")
    assert done.returncode == 1
    assert done.stdout == "begun\n"
    assert done.stderr == (
        f"{tmp_path / 'script.py'}:4: {name} is not available in GraphFlow\n    {line}\n"
    )


def test_a_script_can_ask_and_do_without(tmp_path: pathlib.Path) -> None:
    done = run(
        tmp_path,
        "import torch\n"
        "try:\n    import torch.no_such\nexcept ImportError:\n    print('no module')\n"
        "try:\n    from torch import no_such\nexcept ImportError:\n    print('no name')\n"
        "print(hasattr(torch, 'no_such'), hasattr(torch, 'zeros'), torch.no_grad is not None)\n"
        "print(torch.cuda.is_available(), torch.backends.mps.is_available())\n"
        "print(torch.accelerator.is_available(), torch.device('cuda', 1))\n"
        "print(torch.compile(lambda x: x * 2, mode='max-autotune')(torch.ones(1)))\n",
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "no module", "no name", "False True True", "False False", "False cuda:1",
        "tensor([2.])",
    ]  # fmt: skip


def test_other_errors_are_the_scripts_own_traceback(tmp_path: pathlib.Path) -> None:
    done = run(tmp_path, "import torch\n\ndef f(x):\n    return x @ x\n\nf(torch.ones(2, 3))\n")
    assert done.returncode == 1
    assert "line 6, in <module>" in done.stderr and "line 4, in f" in done.stderr
    assert "graphflow/cli" not in done.stderr
    exits = run(tmp_path, "import sys; sys.exit(3)")
    assert exits.returncode == 3
    absent = subprocess.run(
        [sys.executable, "-m", "graphflow", "run", "no_such.py"],
        capture_output=True, text=True, cwd=ROOT, timeout=300,
    )  # fmt: skip
    assert (absent.returncode, absent.stderr) == (1, "graphflow: no_such.py: no such file\n")


def test_addresses_with_a_file_for_each_class_are_found(tmp_path: pathlib.Path) -> None:
    done = run(
        tmp_path,
        "import torch\n"
        "from torch.distributions.normal import Normal\n"
        "from torch.distributions.transformed_distribution import TransformedDistribution\n"
        "import torch.distributions.one_hot_categorical as one_hot\n"
        "from torch.optim.adamw import AdamW\n"
        "from torch.nn.modules.flatten import Flatten\n"
        "from torch.utils.data._utils.collate import default_collate\n"
        "from torch.cuda.amp import custom_bwd, custom_fwd\n"
        "from torch.jit import Final\n"
        "from torch.types import Device, Number, _size\n"
        "from torch.serialization import add_safe_globals, safe_globals\n"
        "from torch.utils._pytree import tree_map\n"
        "from torchvision.transforms import v2\n"
        "from torchvision.models import resnet18, ResNet18_Weights\n"
        "print(tree_map(abs, [-1, (2,)]), v2.ToDtype(torch.float32))\n"
        "print(torch.version.cuda, torch.version.__version__ == torch.__version__)\n"
        "print(torch.signal.windows.hann(1), bool(torch.mps), bool(torch.cpu), bool(torch.xpu))\n"
        "print(Normal is torch.distributions.Normal is torch.distributions.normal.Normal)\n"
        "print(AdamW is torch.optim.AdamW, Flatten is torch.nn.Flatten)\n"
        "print(one_hot.OneHotCategorical is torch.distributions.OneHotCategorical)\n"
        "print(default_collate([1, 2]), torch.functional.split(torch.ones(2), 1)[0])\n"
        "try:\n    import torch.distributions.no_such\nexcept ImportError:\n    print('none')\n",
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "[1, (2,)] ToDtype(dtype=graphflow.float32, scale=False)", "None True",
        "tensor([1.]) True True True",
        "True", "True True", "True", "tensor([1, 2]) tensor([1.])", "none",
    ]  # fmt: skip
