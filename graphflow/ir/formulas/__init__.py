"""Special functions, each written once: NumPy runs the formulas, and so do kernels."""
