"""JSON as the kernel writes it, for a model's own field."""

from __future__ import annotations

import json
from typing import Any

from automate_kernel.storage.codec import json_text


class ExactJSONEncoder(json.JSONEncoder):
    """The ``encoder`` of a ``JSONField`` whose numbers keep their types in every database."""

    def encode(self, o: Any) -> str:
        """Return *o* as JSON."""
        return str(json_text(o))
