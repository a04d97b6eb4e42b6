"""What a place that keeps secrets must offer."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod

__all__ = ["SecretsBackend"]


class SecretsBackend(ABC):
    """
    A place that secrets are read from: a vault, a cloud's secret manager, files.

    `get_secret` is all that a backend must have; there is no constructor to call. It is called
    from several threads at once. What it raises decides what happens next:

    * `SecretNotFoundError`: the next backend is asked. Nothing else falls through.
    * `SecretDeniedError`, or a ``PermissionError``: the look-up ends, trying again won't help.
    * `SecretUnavailableError`, or anything else: the look-up ends, and may be tried again.

    `automate_kernel.testing.secrets.SecretsBackendContract` tests all of it.
    """

    name: str = ""
    """What messages call this backend; the class's name if empty."""

    @abstractmethod
    def get_secret(self, key: str) -> str:
        """
        The secret's value, never empty.

        Raises `SecretNotFoundError` if there is no such key.
        """

    async def aget_secret(self, key: str) -> str:
        """The same as `get_secret`, which runs in a thread unless a backend overrides this."""
        return await asyncio.to_thread(self.get_secret, key)

    def remedy(self, key: str) -> str:
        """What someone should do to add *key* here: a hint for an error message, or nothing."""
        return ""

    def close(self) -> None:  # noqa: B027 - most backends hold nothing
        """Give back connections and the like."""

    def __repr__(self) -> str:
        # Never the attributes: they may hold a token, or the secrets themselves.
        return f"<{type(self).__name__}>"
