"""Parts of models, by the address that scripts import them from."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

from graphflow import nn
from graphflow.tensor import Tensor

__all__ = ["IntermediateLayerGetter"]


class IntermediateLayerGetter(nn.ModuleDict):
    """The children of ``model`` one after the other, up to the last whose result is asked for.

    ``return_layers`` maps names of children to the names that their results get.
    """

    def __init__(self, model: nn.Module, return_layers: Mapping[str, str]) -> None:
        children = dict(model.named_children())
        unknown = [name for name in return_layers if name not in children]
        if unknown:
            raise ValueError(
                f"IntermediateLayerGetter: {', '.join(unknown)} is no child of the model, whose "
                f"children are {', '.join(children)}"
            )
        names = list(children)
        count = 1 + max(names.index(name) for name in return_layers)
        super().__init__({name: children[name] for name in names[:count]})
        self.return_layers = {str(k): str(v) for k, v in return_layers.items()}

    def forward(self, x: Tensor) -> dict[str, Any]:
        """The results that were asked for."""
        found: dict[str, Any] = OrderedDict()
        for name, module in self.items():
            x = module(x)
            if name in self.return_layers:
                found[self.return_layers[name]] = x
        return found


def _make_divisible(v: float, divisor: int, min_value: int | None = None) -> int:
    """The nearest multiple of ``divisor``, not less than nine tenths of ``v``."""
    least = divisor if min_value is None else min_value
    found = max(least, int(v + divisor / 2) // divisor * divisor)
    return found + divisor if found < 0.9 * v else found
