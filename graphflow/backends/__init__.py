"""``torch.backends``: switches of libraries that PyTorch stands on, so that scripts may set them.

Nothing reads them, GraphFlow's kernels being its own, but for ``nnpack``: fast convolution.
"""

from typing import TYPE_CHECKING

from graphflow.later import importer

__all__ = ["cuda", "cudnn", "mha", "mkldnn", "mps", "nnpack", "quantized"]

if TYPE_CHECKING:
    from graphflow.backends import cuda, cudnn, mha, mkldnn, mps, nnpack, quantized
else:
    __getattr__ = importer(globals(), {name: f"graphflow.backends.{name}" for name in __all__})
