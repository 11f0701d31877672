"""The imports that every program needs, without looking for cyclic garbage meanwhile.

What modules are made of lives on, and looking through it takes a tenth of their import.
"""

from graphflow.collection import without_collection
from graphflow.stack import with_room


@with_room
@without_collection
def _import() -> None:
    from graphflow import api, ops  # noqa: F401


_import()
