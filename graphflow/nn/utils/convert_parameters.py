"""All parameters as one vector, by the address that scripts import it from."""

from graphflow.nn.utils.vectors import parameters_to_vector, vector_to_parameters

__all__ = ["parameters_to_vector", "vector_to_parameters"]
