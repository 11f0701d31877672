"""A program as plain data, for everything that shows programs."""

from graphflow.inspection.graph_data import graph_data
from graphflow.inspection.program_data import program_data

__all__ = ["graph_data", "program_data"]
