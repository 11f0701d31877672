"""Convolutions under 3 x 3 taps by Winograd's transforms, where that is estimated to be faster."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from operator import attrgetter
from typing import Any, ClassVar

from graphflow.ir.build import emit
from graphflow.ir.dims import Dim
from graphflow.ir.formulas.winograd import POINTS, TAPS
from graphflow.ir.graph import Graph
from graphflow.ir.node import Node
from graphflow.ir.types import float32
from graphflow.passes.base import Pass
from graphflow.passes.lasting import of_state_alone
from graphflow.passes.rewrite import hits, rewrite

DIRECT = 1.4
"""Products of transformed tiles in the time of one of the direct method."""
MOVED = 4
"""Products in the time in which one element of a tile is transformed, in or out."""
TAP, KEPT_TAP = 30, 10
"""Products in the time in which one element of transformed taps is made and read again, or
summed up and taken back: they are more than the taps, and seldom found in a cache.  Taps
that are kept from call to call are only read."""
FEWEST_CHANNELS = 8
"""With fewer, vectors of channels are not full."""
FEWEST_TILES = 24
"""Fewer take as long: taps are read no faster."""
FEW_TILES = 96
"""So few are brought through all steps together, by threads that share the taps."""
USUAL_IMAGES = 32
"""Where their number is not known."""
LEADING = 3


@dataclass(frozen=True)
class Winograd(Pass):
    """Replace stride-1 convolutions under 3 x 3 taps, and the gradients of their taps.

    Of tiles of 4 x 4 and of 2 x 2 results, and the direct method, each takes the one of least
    estimated work.  Rounding differs: by the bounds in ``docs/convolution.md``; only float32
    is replaced, and only where all extents but the number of images are known::

        %2: f32[8,1,64,32,32] = conv(%x, %w, …)    →    %2 = winograd_taps(%w, size=4)
                                                        %3 = winograd(%x, %2, size=4, …)

    or, for few tiles, ``winograd_whole(%x, %w, size=4, …)``.

    ``sizes`` are those of the tiles to choose from; none leaves all to the direct method.
    ``always`` takes them whatever the estimate of the direct method, ``lasting`` says that
    what depends on state alone is computed once.
    """

    sizes: tuple[int, ...] = tuple(POINTS)
    always: bool = False
    lasting: bool = False
    name: ClassVar[str] = "winograd"

    def run(self, graph: Graph) -> Graph:
        """The graph with convolutions replaced, in its regions too."""
        if not self.sizes:
            return graph
        kept = of_state_alone(graph) if self.lasting else frozenset()
        slides = attrgetter("op.slides")
        return rewrite(graph, lambda node: self._replaced(node, kept), only=slides)

    def _replaced(self, node: Node, kept: frozenset[Node]) -> Node | None:
        if not node.op.slides or node.dtype is not float32 or not _is_plain(node):
            return None
        if node.inputs[1].shape[LEADING:] == (TAPS, TAPS):
            return _convolved(node, self, KEPT_TAP if node.inputs[1] in kept else TAP)
        return _gradient(node, self)


def _is_plain(node: Node) -> bool:
    """Two-dimensional, one group, no strides, nothing spread; padding."""
    x, w = node.inputs
    attrs: Any = node.attrs
    return (
        len(x.shape) == LEADING + 2
        and w.shape[0] == 1
        and all(set(attrs[key]) == {1} for key in ("steps", "spread", "dilations"))
        and min(*attrs["low"], *attrs["high"]) >= 0
        and not attrs.get("direct", False)
    )


def _known(images: Dim, *others: Dim) -> bool:
    """Whether extents are known, as all but the number of images must be, and none is 0."""
    return images != 0 and all(isinstance(d, int) and d > 0 for d in others)


def _best(
    chosen: Winograd, images: Any, channels: Any, filters: Any, places: Sequence[Any], tap: int
) -> int | None:
    """The size of tiles with least estimated work; None for the direct method."""
    if min(channels, filters) < FEWEST_CHANNELS:
        return None
    if not isinstance(images, int):
        images = USUAL_IMAGES
    best, found = DIRECT * TAPS**2 * images * prod(places) * channels * filters, None
    best = float("inf") if chosen.always else best
    for size in chosen.sizes:
        tiles = max(FEWEST_TILES, images * prod(-(-d // size) for d in places))
        pairs, elements = channels * filters, tiles * (channels + filters)
        work = (size + TAPS - 1) ** 2 * (tiles * pairs + MOVED * elements + tap * pairs)
        if work < best:
            best, found = work, size
    return found


def _convolved(node: Node, chosen: Winograd, tap: int) -> Node | None:
    """A convolution of images, of the result's gradient with flipped taps too."""
    x, w = node.inputs
    images, _, channels, *extents = x.shape
    filters, places = w.shape[1], node.shape[LEADING:]
    if not _known(images, *x.shape[1:], *w.shape, *node.shape[1:]):
        return None
    size = _best(chosen, images, channels, filters, places, tap)
    if size is None:
        return None
    hits[f"winograd {size}x{size}"] += 1
    facts = {"size": size, "low": node.attrs["low"], "high": node.attrs["high"], "last": False}
    x = emit("reshape", x, shape=(images, channels, *extents))
    if tap == TAP and _few(images, size, places, channels, filters):
        w = emit("reshape", w, shape=(filters, channels, TAPS**2))
        return emit("reshape", emit("winograd_whole", x, w, **facts), shape=node.shape)
    taps = emit("winograd_taps", emit("reshape", w, shape=w.shape[1:]), size=size)
    made = emit("winograd", x, taps, filters=filters, **facts)
    return emit("reshape", made, shape=node.shape)


def _few(images: Dim, size: int, places: Sequence[Any], channels: Any, filters: Any) -> bool:
    """Whether there are so few tiles that taps are best transformed where they are used."""
    if not isinstance(images, int):
        return False
    tiles = images * prod(-(-d // size) for d in places)
    return bool(tiles <= max(FEW_TILES, min(channels, filters) // 4))


def _gradient(node: Node, chosen: Winograd) -> Node | None:
    """The gradient of taps: images and channels are exchanged, the cotangent is the kernel."""
    x, ct = node.inputs
    channels, _, images, *extents = x.shape
    filters, places = ct.shape[1], ct.shape[LEADING:]
    if node.shape[LEADING:] != (TAPS, TAPS) or not _known(
        images, channels, *extents, filters, *places
    ):
        return None
    size = _best(chosen, images, channels, filters, places, TAP)
    if size is None:
        return None
    hits[f"winograd {size}x{size}"] += 1
    swap = (1, 0, 2, 3)
    made = emit(
        "winograd_gradient",
        emit("permute", emit("reshape", x, shape=(channels, images, *extents)), axes=swap),
        emit("permute", emit("reshape", ct, shape=(filters, images, *places)), axes=swap),
        size=size, low=node.attrs["low"], high=node.attrs["high"], last=False,
    )  # fmt: skip
    return emit("reshape", emit("permute", made, axes=swap), shape=node.shape)
