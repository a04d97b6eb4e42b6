"""The API key, which must be one of the mode that the config says."""

from __future__ import annotations

from automate_http import BearerAuth, Credentials
from automate_kernel.base.errors import AutomateError, ErrorCodes
from automate_kernel.operations.context import SecretReader

_LIVE = ("sk_live_", "rk_live_")
_TEST = ("sk_test_", "rk_test_")


class KeyAuth(BearerAuth):
    """Stripe's API key under the secret *key*. One of the other mode is refused, and not sent."""

    def __init__(self, key: str, *, livemode: bool) -> None:
        super().__init__(key)
        self._name, self._livemode = key, livemode

    async def credentials(self, secrets: SecretReader) -> Credentials:
        """Read the key. Raises ``FAILED_PRECONDITION`` if it is one of the other mode."""
        found = await super().credentials(secrets)
        (key,) = found.values
        if key.startswith(_TEST if self._livemode else _LIVE):
            mode = "test" if self._livemode else "live"
            raise AutomateError(
                ErrorCodes.FAILED_PRECONDITION,
                f"the secret {self._name!r} is a {mode} key, and the config says otherwise",
                hint="set livemode in the connector's config if real money is meant",
            )
        return found
