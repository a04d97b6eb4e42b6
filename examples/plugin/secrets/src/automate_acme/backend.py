"""The secrets backend: values that Acme Inc keeps."""

import json
from pathlib import Path

from automate_kernel import SecretNotFoundError, SecretsBackend, SecretUnavailableError


class AcmeBackend(SecretsBackend):
    """Secrets in a JSON file, until you ask Acme Inc for them instead."""

    name = "acme"

    def __init__(self, file: str = "secrets.json") -> None:
        """Read *file*, in which there is an object of texts."""
        self._file = Path(file)

    def get_secret(self, key: str) -> str:
        """Return the secret *key*; only "not found" lets the next backend be asked."""
        try:
            secrets = json.loads(self._file.read_text("utf-8"))
        except (OSError, ValueError):
            raise SecretUnavailableError(f"{self._file.name} can't be read") from None
        if not isinstance(secrets, dict):
            raise SecretUnavailableError(f"{self._file.name} holds no object of texts")
        if key not in secrets:
            raise SecretNotFoundError(key)
        return str(secrets[key])

    def remedy(self, key: str) -> str:
        """Return what to do where *key* is missing."""
        return f"add {key} to {self._file.name}"
