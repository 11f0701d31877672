"""A program as one Python file that needs NumPy and Numba only: ``graphflow export``."""

from graphflow.standalone.export import export_python

__all__ = ["export_python"]
