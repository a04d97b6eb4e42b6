"""The secrets backend of AWS Systems Manager Parameter Store."""

from __future__ import annotations

import re

from automate_aws.failures import needed
from automate_aws.secret_names import SecretName, check_writable, field_of, parse_key
from automate_aws.secrets_backend import AwsSecretsBackend
from automate_kernel.base.errors import SecretNotFoundError

_NAME = re.compile(r"/?[A-Za-z0-9_.-]+(/[A-Za-z0-9_.-]+)*")
_LONGEST = 1_011


class ParameterStoreBackend(AwsSecretsBackend):
    """
    Parameters of AWS Systems Manager, decrypted.

    A key is a parameter's name: ``/prod/crm-token``, or ``crm-token`` under the prefix ``/prod/``.
    ``/prod/db#password`` is a field of a parameter that is a JSON object, ``/prod/crm?version=3``
    and ``/prod/crm?label=tested`` are other versions than the newest.
    """

    name = "aws_parameter_store"

    def get_secret(self, key: str) -> str:
        """Return the parameter's value, or a field of it."""
        name = self._parsed(key)
        version = f":{name.value}" if name.selector else ""
        with self._asking(key):
            answer = self._clients.call(
                "ssm", "get_parameter", Name=self.prefix + name.name + version, WithDecryption=True
            )
            value = needed(needed(answer, "Parameter", "ssm"), "Value", "ssm get_parameter")
        return field_of(key, name.field, value)

    def set_secret(self, key: str, value: str) -> None:
        """Write a new version of an encrypted parameter; up to 8 KiB of it."""
        name = self._writable(key)
        with self._asking(key):
            answer = self._clients.call(
                "ssm",
                "put_parameter",
                Name=name,
                Value=value,
                Type="SecureString",
                Overwrite=True,
                # An advanced one, which costs, only where 4 KiB are not enough.
                Tier="Intelligent-Tiering",
            )
            # An empty answer, as of a proxy, is nobody's word that the value was kept.
            needed(answer, "Version", "ssm put_parameter")

    def delete_secret(self, key: str) -> None:
        """Delete a parameter with its versions."""
        name = self._writable(key)
        try:
            with self._asking(key):
                self._clients.call("ssm", "delete_parameter", Name=name)
        except SecretNotFoundError:
            pass

    def remedy(self, key: str) -> str:
        """Give the command that adds it."""
        try:
            name = self._parsed(key)
        except SecretNotFoundError:
            return ""
        return (
            f"aws ssm put-parameter --type SecureString --name {self.prefix}{name.name} --value …"
        )

    def _parsed(self, key: str) -> SecretName:
        name = parse_key(key, _NAME, "version", "label")
        full = self.prefix + name.name
        # AWS takes a name with a slash only if it begins with one.
        if ("/" in full and not full.startswith("/")) or len(full) > _LONGEST:
            raise SecretNotFoundError(key)
        return name

    def _writable(self, key: str) -> str:
        name = self._parsed(key)
        check_writable(key, name)
        return self.prefix + name.name
