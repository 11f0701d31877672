"""The CUDA back end of code generation: the same loop IR, written as ``@cuda.jit`` kernels."""
