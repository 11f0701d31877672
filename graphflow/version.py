"""The version of this GraphFlow."""

__version__ = "0.1.0"
