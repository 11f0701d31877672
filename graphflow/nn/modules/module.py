"""The module, by the address that scripts import it from."""

from graphflow.nn.module import Module

__all__ = ["Module"]
