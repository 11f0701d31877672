"""The version of this GraphFlow, and those of the toolkits it was built with: none."""

__version__ = "0.1.0"
cuda = None
"""Kernels for GPUs are generated when they are needed: no CUDA toolkit was there before."""
hip = None
