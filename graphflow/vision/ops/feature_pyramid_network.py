"""Lin et al. (2017): features of several sizes, each with what the smaller ones know."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from graphflow import nn
from graphflow.nn import functional as F
from graphflow.nn import init
from graphflow.tensor import Tensor
from graphflow.vision.ops.misc import Conv2dNormActivation

__all__ = ["ExtraFPNBlock", "FeaturePyramidNetwork", "LastLevelMaxPool", "LastLevelP6P7"]


class ExtraFPNBlock(nn.Module):
    """Base of what adds levels: ``forward(results, x, names)`` gives results and names."""

    def forward(
        self, results: list[Tensor], x: list[Tensor], names: list[str]
    ) -> tuple[list[Tensor], list[str]]:
        """Define it in a sub-class."""
        raise NotImplementedError(f"{type(self).__name__} does not define forward()")


class FeaturePyramidNetwork(nn.Module):
    """Maps of one width from an ordered dictionary of maps, the largest first.

    Each is brought to ``out_channels``, gets the next smaller one, doubled in size, added, and is
    smoothed by a 3×3 convolution.
    """

    _version = 2

    def __init__(
        self, in_channels_list: Sequence[int], out_channels: int,
        extra_blocks: ExtraFPNBlock | None = None,
        norm_layer: Callable[..., nn.Module] | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        if 0 in in_channels_list:
            raise ValueError("FeaturePyramidNetwork: a map of 0 channels cannot be brought in")

        def block(inputs: int, size: int) -> nn.Module:
            return Conv2dNormActivation(
                inputs, out_channels, size, padding=size // 2, norm_layer=norm_layer,
                activation_layer=None,
            )  # fmt: skip

        self.inner_blocks = nn.ModuleList([block(inputs, 1) for inputs in in_channels_list])
        self.layer_blocks = nn.ModuleList([block(out_channels, 3) for _ in in_channels_list])
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                init.kaiming_uniform_(module.weight, a=1)
                if module.bias is not None:
                    init.zeros_(module.bias)
        self.extra_blocks = extra_blocks

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, local_metadata: dict[str, Any], *args: Any
    ) -> None:
        """Older states have the convolutions themselves where there are blocks now."""
        if (local_metadata.get("version") or 1) < 2:
            for kind in ("inner_blocks", "layer_blocks"):
                for i in range(len(self.inner_blocks)):
                    for part in ("weight", "bias"):
                        old = f"{prefix}{kind}.{i}.{part}"
                        if old in state_dict:
                            state_dict[f"{prefix}{kind}.{i}.0.{part}"] = state_dict.pop(old)
        super()._load_from_state_dict(state_dict, prefix, local_metadata, *args)

    def forward(self, x: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The maps by the same names, and those of the extra block."""
        names, given = list(x.keys()), list(x.values())
        last = self.inner_blocks[-1](given[-1])
        results = [self.layer_blocks[-1](last)]
        for i in range(len(given) - 2, -1, -1):
            lateral = self.inner_blocks[i](given[i])
            last = lateral + F.interpolate(last, size=tuple(lateral.shape[-2:]), mode="nearest")
            results.insert(0, self.layer_blocks[i](last))
        if self.extra_blocks is not None:
            results, names = self.extra_blocks(results, given, names)
        return OrderedDict(zip(names, results))


class LastLevelMaxPool(ExtraFPNBlock):
    """Every second pixel of the smallest map as one more, ``"pool"``."""

    def forward(
        self, results: list[Tensor], x: list[Tensor], names: list[str]
    ) -> tuple[list[Tensor], list[str]]:
        """One level more."""
        return [*results, F.max_pool2d(results[-1], 1, 2, 0)], [*names, "pool"]


class LastLevelP6P7(ExtraFPNBlock):
    """Two more maps by convolutions of stride 2, as in RetinaNet: ``"p6"`` and ``"p7"``."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.p6 = nn.Conv2d(in_channels, out_channels, 3, 2, 1)
        self.p7 = nn.Conv2d(out_channels, out_channels, 3, 2, 1)
        for module in (self.p6, self.p7):
            init.kaiming_uniform_(module.weight, a=1)
            if module.bias is not None:
                init.zeros_(module.bias)
        self.use_P5 = in_channels == out_channels

    def forward(
        self, results: list[Tensor], x: list[Tensor], names: list[str]
    ) -> tuple[list[Tensor], list[str]]:
        """Two levels more."""
        first = self.p6((results if self.use_P5 else x)[-1])
        return [*results, first, self.p7(F.relu(first))], [*names, "p6", "p7"]
