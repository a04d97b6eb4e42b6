"""A secrets backend."""

from __future__ import annotations

from collections.abc import Mapping

from automate_kernel import SecretNotFoundError, SecretsBackend


class FrozenDrawer(SecretsBackend):
    """Secrets in a drawer."""

    name = "frozen-drawer"

    def __init__(self, contents: Mapping[str, str] | None = None) -> None:
        self._contents = dict(contents or {"DRAWER": "what-is-in-the-drawer-42"})

    def get_secret(self, key: str) -> str:
        try:
            return self._contents[key]
        except KeyError:
            raise SecretNotFoundError(key) from None

    def remedy(self, key: str) -> str:
        return f"put {key} into the drawer"
