"""Optimisers whose state is divided over the ranks of a job."""

from graphflow.distributed.optim.zero_redundancy import ZeroRedundancyOptimizer

__all__ = ["ZeroRedundancyOptimizer"]
