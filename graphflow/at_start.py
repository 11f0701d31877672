"""What every program needs, imported in one go.

Modules make many objects and no garbage, so it is not looked for meanwhile: that would take
a tenth of the time.
"""

from graphflow.collection import without_collection

with without_collection():
    pass
