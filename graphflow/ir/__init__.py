"""The intermediate representation: types, nodes, operation records, graphs, text."""

from graphflow.ir import ops

__all__ = ["ops"]
