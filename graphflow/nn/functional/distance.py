"""Distances and similarities."""

from graphflow.functions.norms import cosine_similarity, pairwise_distance, pdist

__all__ = ["cosine_similarity", "pairwise_distance", "pdist"]
