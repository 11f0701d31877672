"""``torch.nn.attention``: which implementation is wanted, and attention of one's own making."""

from typing import TYPE_CHECKING

from graphflow.later import importer
from graphflow.nn.attention.choice import SDPBackend, sdpa_kernel

if TYPE_CHECKING:
    from graphflow.nn.attention import flex_attention
else:
    __getattr__ = importer(globals(), {"flex_attention": "graphflow.nn.attention.flex_attention"})

__all__ = ["SDPBackend", "flex_attention", "sdpa_kernel"]
