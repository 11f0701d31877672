"""How ranges become integers: one range or one a channel, with a zero point or symmetric."""

from __future__ import annotations

from graphflow.records import NamedTuple


class QScheme(NamedTuple):
    """A scheme; PyTorch's names are the four there are."""

    name: str
    per_channel: bool
    symmetric: bool
    float_zero: bool = False
    """Whether zero points are numbers, and ranges need not hold zero."""

    def __repr__(self) -> str:
        return f"graphflow.{self.name}"


per_tensor_affine = QScheme("per_tensor_affine", False, False)
per_tensor_symmetric = QScheme("per_tensor_symmetric", False, True)
per_channel_affine = QScheme("per_channel_affine", True, False)
per_channel_symmetric = QScheme("per_channel_symmetric", True, True)
per_channel_affine_float_qparams = QScheme("per_channel_affine_float_qparams", True, False, True)
