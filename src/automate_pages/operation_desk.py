"""The operations that the pages offer to be called by a form."""

from __future__ import annotations

from automate_kernel.http.api.exchange import ApiAnswer
from automate_kernel.http.api.idempotency import KeyedRequest
from automate_kernel.http.api.problems import ApiError
from automate_kernel.http.operations import ExposedOperations

_HOURS = 1.0


class OperationDesk:
    """The operations that are *exposed*, each sent form counted once."""

    def __init__(self, exposed: ExposedOperations) -> None:
        self.exposed = exposed
        """The operations that may be called."""

    def is_first(self, key: str) -> bool:
        """Return True unless the form with *key* was sent before, to whichever process."""
        kernel = self.exposed.kernel
        form = KeyedRequest(
            kernel.storage, kernel.redactor.redact_value, "pages", key, "form", hours=_HOURS
        )
        try:
            if form.begin() is not None:
                return False
            form.keep(ApiAnswer(200))
        except ApiError:
            return False
        return True
