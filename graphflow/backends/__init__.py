"""``torch.backends``: switches of libraries that PyTorch stands on, so that scripts may set them.

Most are read by nobody, GraphFlow's kernels being its own; ``cpu``, ``cuda``, ``cudnn`` and
``nnpack`` (fast convolution) are.
"""

from typing import TYPE_CHECKING

from graphflow.later import importer

__all__ = [
    "cpu", "cuda", "cudnn", "mha", "mkl", "mkldnn", "mps", "nnpack", "openmp", "opt_einsum",
    "quantized",
]  # fmt: skip

if TYPE_CHECKING:
    from graphflow.backends import (
        cpu,
        cuda,
        cudnn,
        mha,
        mkl,
        mkldnn,
        mps,
        nnpack,
        openmp,
        opt_einsum,
        quantized,
    )
else:
    __getattr__ = importer(globals(), {name: f"graphflow.backends.{name}" for name in __all__})
