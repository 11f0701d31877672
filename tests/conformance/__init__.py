"""PyTorch's own samples through GraphFlow: operations, modules and optimisers.

Whole models are trained beside PyTorch too, from the same weights.

``python -m tests.conformance`` needs PyTorch; the files of this package are not
test modules, so that ``pytest`` runs without it.
"""
