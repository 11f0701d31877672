"""Regions of feature maps of several sizes: a box is looked for in the map that suits its size."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from graphflow.dispatch import full
from graphflow.errors import ShapeError
from graphflow.functions.elementwise import floor, where
from graphflow.functions.shaping import cat
from graphflow.ir import types as T
from graphflow.mode import mode
from graphflow.nn.module import Module
from graphflow.tensor import Tensor
from graphflow.vision.ops.boxes import box_area
from graphflow.vision.ops.regions import roi_align

__all__ = ["MultiScaleRoIAlign"]


class MultiScaleRoIAlign(Module):
    """:func:`roi_align` from one of several maps: Lin et al. (2017), equation 1.

    A box of ``canonical_scale`` by ``canonical_scale`` pixels is for level ``canonical_level``,
    where level l has a stride of 2 to the l; one of half the size for the level before.
    """

    def __init__(
        self, featmap_names: Sequence[str], output_size: int | Sequence[int], sampling_ratio: int,
        *, canonical_scale: int = 224, canonical_level: int = 4,
    ) -> None:  # fmt: skip
        super().__init__()
        self.featmap_names, self.sampling_ratio = list(featmap_names), sampling_ratio
        pair = (output_size, output_size) if isinstance(output_size, int) else tuple(output_size)
        self.output_size = pair
        self.canonical_scale, self.canonical_level = canonical_scale, canonical_level

    def forward(
        self, x: Mapping[str, Tensor], boxes: Sequence[Tensor],
        image_shapes: Sequence[tuple[int, int]],
    ) -> Tensor:  # fmt: skip
        """[K, C, *output_size] for the boxes of all images, which are as large as said."""
        maps = [x[name] for name in x if name in self.featmap_names]
        if not maps or not image_shapes:
            raise ShapeError(
                "MultiScaleRoIAlign: there are no maps called "
                f"{', '.join(self.featmap_names)}, or no sizes of images"
            )
        height = max(shape[0] for shape in image_shapes)
        scales = [2.0 ** round(math.log2(m.shape[-2] / height)) for m in maps]
        corners = cat(list(boxes))
        images = cat(
            [full((b.shape[0], 1), i, corners.dtype, b.device) for i, b in enumerate(boxes)]
        )
        rois = cat([images, corners], 1)
        if len(maps) == 1:
            return self._aligned(maps[0], rois, scales[0])
        levels = self._levels(corners, scales)
        if mode.tracer is not None:
            return self._from_all(maps, rois, scales, levels)
        found: Tensor = maps[0].new_zeros(rois.shape[0], maps[0].shape[1], *self.output_size)
        for level, (own, scale) in enumerate(zip(maps, scales)):
            at = (levels == level).nonzero()[:, 0]
            found = found.index_copy(0, at, self._aligned(own, rois[at], scale))
        return found

    def _aligned(self, maps: Tensor, rois: Tensor, scale: float) -> Tensor:
        return roi_align(maps, rois, self.output_size, scale, self.sampling_ratio)

    def _levels(self, corners: Tensor, scales: Sequence[float]) -> Tensor:
        """The number of the map for each box."""
        least, most = (-round(math.log2(scale)) for scale in (scales[0], scales[-1]))
        size = box_area(corners.detach()).sqrt() / self.canonical_scale
        level = floor(self.canonical_level + size.log2() + 1e-6).clamp(least, most)
        return (level - least).to(T.int64)  # type: ignore[no-any-return]

    def _from_all(
        self, maps: Sequence[Tensor], rois: Tensor, scales: Sequence[float], levels: Tensor
    ) -> Tensor:
        """In a compiled function every map is looked at: how many boxes each has is not known."""
        found = self._aligned(maps[0], rois, scales[0])
        for level, (own, scale) in enumerate(zip(maps[1:], scales[1:]), 1):
            here = (levels == level)[:, None, None, None]
            found = where(here, self._aligned(own, rois, scale), found)
        return found

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}(featmap_names={self.featmap_names}, "
            f"output_size={self.output_size}, sampling_ratio={self.sampling_ratio})"
        )
