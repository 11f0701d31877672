"""What registering a hook gives, by the address that scripts import it from."""

from graphflow.handles import RemovableHandle

__all__ = ["RemovableHandle"]
