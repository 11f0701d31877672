"""The formulas behind :mod:`graphflow.codegen.vector_math`, one family a file."""
