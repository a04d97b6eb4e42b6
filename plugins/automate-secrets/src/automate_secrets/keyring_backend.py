"""The backend that reads the keyring of the operating system."""

from __future__ import annotations

import shlex

from automate_kernel.base.errors import (
    ConfigError,
    SecretError,
    SecretNotFoundError,
    SecretUnavailableError,
)
from automate_kernel.secrets import SecretsBackend


class KeyringBackend(SecretsBackend):
    """
    Secrets in the keyring of the user: macOS's Keychain, Windows' Credential Locker, the Secret
    Service of GNOME and KDE. The key is the user name below *service*.

    It is for programs that a person runs: a keyring is locked until its owner has logged in.
    """

    name = "keyring"

    def __init__(self, service: str = "automate") -> None:
        try:
            import keyring
        except ImportError:
            raise ConfigError(
                "the keyring backend needs the library keyring",
                hint="pip install 'automate-secrets[keyring]'",
            ) from None
        self._service, self._keyring = service, keyring

    def get_secret(self, key: str) -> str:
        """Ask the keyring."""
        errors = self._keyring.errors
        try:
            value = self._keyring.get_password(self._service, key)
        except errors.NoKeyringError:
            problem: SecretError = SecretError(
                "this process has no keyring",
                hint="a service has none, only the session of a person; use another backend there",
            )
        except (errors.KeyringLocked, errors.InitError):
            problem = SecretUnavailableError(
                "the keyring is locked, or doesn't answer", hint="log in, or unlock it"
            )
        except errors.KeyringError as error:
            problem = SecretUnavailableError(f"the keyring failed: {type(error).__name__}")
        else:
            if not value:
                raise SecretNotFoundError(key)
            return value
        raise problem  # outside the handlers: the library's error may hold more than it should

    def remedy(self, key: str) -> str:
        """Give the command that stores it."""
        return f"keyring set {shlex.quote(self._service)} {shlex.quote(key)}"
