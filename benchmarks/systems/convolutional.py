"""The convolution networks in the words that PyTorch and GraphFlow share."""

from __future__ import annotations

from types import ModuleType
from typing import Any

from benchmarks.images import STAGES, Digits, Images, Residual


def program(framework: ModuleType, workload: Images) -> tuple[Any, Any]:
    """The model and its optimiser (None for scores); ``framework``: ``torch`` or ``graphflow``."""
    model = (digits if isinstance(workload, Digits) else residual)(framework, workload)
    parameters = workload.parameters()
    model.load_state_dict({n: framework.from_numpy(value) for n, value in parameters.items()})
    if isinstance(workload, Residual) and not workload.training:
        return model.eval(), None
    return model, framework.optim.SGD(model.parameters(), lr=workload.lr)


def digits(framework: ModuleType, workload: Any) -> Any:
    """Convolution, ReLU and pooling, twice, then two linear layers."""
    nn, F = framework.nn, framework.nn.functional
    one, two = workload.channels

    class Net(nn.Module):  # type: ignore[name-defined, misc]
        def __init__(self) -> None:
            super().__init__()
            self.conv1, self.conv2 = nn.Conv2d(1, one, 3, 1, 1), nn.Conv2d(one, two, 3, 1, 1)
            self.pool = nn.MaxPool2d(2, 2)
            self.hidden = nn.Linear(workload.features, workload.hidden)
            self.head = nn.Linear(workload.hidden, workload.classes)

        def forward(self, x: Any) -> Any:
            x = self.pool(F.relu(self.conv1(x)))
            x = self.pool(F.relu(self.conv2(x)))
            return self.head(F.relu(self.hidden(x.flatten(1))))

    return Net()


def residual(framework: ModuleType, workload: Any) -> Any:
    """ResNet-18 whose stem is one 3×3 convolution."""
    nn, F = framework.nn, framework.nn.functional

    def short(inputs: int, outputs: int, stride: int) -> Any:
        made = nn.Sequential()
        if stride != 1 or inputs != outputs:
            made.add_module("conv", nn.Conv2d(inputs, outputs, 1, stride, bias=False))
            made.add_module("norm", nn.BatchNorm2d(outputs))
        return made

    class Block(nn.Module):  # type: ignore[name-defined, misc]
        def __init__(self, inputs: int, outputs: int, stride: int) -> None:
            super().__init__()
            self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
            self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
            self.norm1, self.norm2 = nn.BatchNorm2d(outputs), nn.BatchNorm2d(outputs)
            self.short = short(inputs, outputs, stride)

        def forward(self, x: Any) -> Any:
            y = F.relu(self.norm1(self.conv1(x)))
            return F.relu(self.norm2(self.conv2(y)) + self.short(x))

    class Net(nn.Module):  # type: ignore[name-defined, misc]
        def __init__(self) -> None:
            super().__init__()
            self.stem = nn.Sequential()
            self.stem.add_module("conv", nn.Conv2d(3, 64, 3, 1, 1, bias=False))
            self.stem.add_module("norm", nn.BatchNorm2d(64))
            blocks, inputs = [], 64
            for outputs, stride in STAGES:
                blocks.append(Block(inputs, outputs, stride))
                inputs = outputs
            self.blocks = nn.Sequential(*blocks)
            self.head = nn.Linear(inputs, workload.classes)

        def forward(self, x: Any) -> Any:
            return self.head(self.blocks(F.relu(self.stem(x))).mean((2, 3)))

    return Net()
