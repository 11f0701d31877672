"""The sampler of ranks by the address that scripts import it from."""

from graphflow.utils.data.distributed_sampler import DistributedSampler

__all__ = ["DistributedSampler"]
