"""What training needs beside modules and optimisers: data loading, progress."""

from graphflow.utils import data

__all__ = ["data"]
