"""A program as one HTML page that needs nothing else."""

from graphflow.report.build import render, write_report

__all__ = ["render", "write_report"]
