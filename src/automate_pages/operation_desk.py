"""The operations that the pages offer to be called by a form."""

from __future__ import annotations

from collections import OrderedDict

from automate_kernel.base.forks import new_lock
from automate_kernel.http.operations import ExposedOperations

_MOST_KEYS = 1_000


class OperationDesk:
    """The operations that are *exposed*, each sent form counted once."""

    def __init__(self, exposed: ExposedOperations) -> None:
        self.exposed = exposed
        """The operations that may be called."""
        self._keys: OrderedDict[str, None] = OrderedDict()
        self._lock = new_lock()

    def is_first(self, key: str) -> bool:
        """Return True unless the form with *key* was sent before, as by a second click."""
        with self._lock:
            if key in self._keys:
                return False
            self._keys[key] = None
            if len(self._keys) > _MOST_KEYS:
                self._keys.popitem(last=False)
        return True
