"""The older address of :func:`graphflow.func.functional_call`."""

from graphflow.func import functional_call

__all__ = ["functional_call"]
