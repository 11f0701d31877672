"""``torch.backends``: switches of libraries that PyTorch stands on, so that scripts may set them.

Nothing reads them, GraphFlow's kernels being its own, but for ``nnpack``: fast convolution.
"""

from graphflow.backends import cuda, cudnn, mha, mkldnn, mps, nnpack, quantized

__all__ = ["cuda", "cudnn", "mha", "mkldnn", "mps", "nnpack", "quantized"]
