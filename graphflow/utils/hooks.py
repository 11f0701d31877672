"""What registering a hook gives, by the address that scripts import it from."""

from graphflow.tensor import RemovableHandle

__all__ = ["RemovableHandle"]
