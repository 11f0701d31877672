"""Functions on tensors: what ``gf.<name>`` and ``x.<name>()`` are, a module for each subject."""
