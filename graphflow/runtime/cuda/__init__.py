"""The CUDA runtime: device memory, arrays over it, and programs that run there."""
