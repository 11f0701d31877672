"""``torch.backends``: switches of libraries that PyTorch stands on, so that scripts may set them.

Nothing reads them: GraphFlow's kernels are its own.
"""

from graphflow.backends import cuda, cudnn, mha, mkldnn, mps

__all__ = ["cuda", "cudnn", "mha", "mkldnn", "mps"]
