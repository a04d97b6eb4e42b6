"""The secrets backend of AWS Secrets Manager."""

from __future__ import annotations

import re

from automate_aws.failures import aws_code, needed
from automate_aws.secret_names import SecretName, check_writable, field_of, parse_key
from automate_aws.secrets_backend import AwsSecretsBackend
from automate_kernel.base.errors import AutomateError, SecretError, SecretNotFoundError

_NAME = re.compile(r"[A-Za-z0-9/_+=.@!-]{1,512}")
_ARN = re.compile(r"arn:[\w-]+:secretsmanager:[\w-]+:\d{12}:secret:[A-Za-z0-9/_+=.@!-]+")


class SecretsManagerBackend(AwsSecretsBackend):
    """
    Secrets of AWS Secrets Manager.

    A key is a secret's name: ``prod/crm``. ``prod/db#password`` is a field of a secret that is a
    JSON object, ``prod/crm?stage=AWSPREVIOUS`` and ``prod/crm?version=ID`` are other versions than
    the current one. Without a prefix a key may be a secret's ARN, of another account too.
    """

    name = "aws_secrets_manager"

    def get_secret(self, key: str) -> str:
        """Return the secret's text, or a field of it."""
        name = self._parsed(key)
        version = {"stage": "VersionStage", "version": "VersionId"}.get(name.selector or "")
        with self._asking(key):
            answer = self._clients.call(
                "secretsmanager",
                "get_secret_value",
                SecretId=self.prefix + name.name,
                **({version: name.value} if version else {}),
            )
            if answer.get("SecretBinary") is not None:
                raise SecretError(
                    f"secret {key!r} is binary", hint="store text; encode what is binary as base64"
                )
            text = needed(answer, "SecretString", "secretsmanager get_secret_value")
        return field_of(key, name.field, text)

    def set_secret(self, key: str, value: str) -> None:
        """Make a new version the current one; a secret that isn't there is created."""
        secret = self._writable(key)
        with self._asking(key):
            # Twice, as another process may create it between.
            for last in (False, True):
                try:
                    self._written("put_secret_value", SecretId=secret, SecretString=value)
                    return
                except AutomateError as error:
                    if last or aws_code(error) != "ResourceNotFoundException":
                        raise
                try:
                    self._written("create_secret", Name=secret, SecretString=value)
                    return
                except AutomateError as error:
                    if aws_code(error) != "ResourceExistsException":
                        raise

    def _written(self, name: str, **values: str) -> None:
        # An empty answer, as of a proxy, is nobody's word that the value was kept.
        answer = self._clients.call("secretsmanager", name, **values)
        needed(answer, "ARN", f"secretsmanager {name}")

    def delete_secret(self, key: str) -> None:
        """Delete a secret at once, without a time for its recovery."""
        secret = self._writable(key)
        try:
            with self._asking(key):
                self._clients.call(
                    "secretsmanager",
                    "delete_secret",
                    SecretId=secret,
                    ForceDeleteWithoutRecovery=True,
                )
        except SecretNotFoundError:
            pass

    def remedy(self, key: str) -> str:
        """Give the command that adds it."""
        try:
            name = self._parsed(key)
        except SecretNotFoundError:
            return ""
        return f"aws secretsmanager create-secret --name {self.prefix}{name.name}"

    def _parsed(self, key: str) -> SecretName:
        if not self.prefix and _ARN.match(key):
            return parse_key(key, _ARN, "stage", "version")
        return parse_key(key, _NAME, "stage", "version")

    def _writable(self, key: str) -> str:
        name = self._parsed(key)
        check_writable(key, name)
        return self.prefix + name.name
