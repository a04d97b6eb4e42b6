"""The secrets backends of AWS: Secrets Manager and Systems Manager Parameter Store."""

from __future__ import annotations

import hashlib
import re
from abc import abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from typing import Any, ClassVar

from automate_aws.access import AwsAccess
from automate_aws.clients import AwsClients
from automate_aws.failures import aws_code, needed
from automate_aws.parameter_lock import ParameterLock
from automate_aws.secret_names import (
    SecretName,
    check_writable,
    field_of,
    parse_key,
    secret_failure,
)
from automate_kernel.base.errors import AutomateError, SecretError, SecretNotFoundError
from automate_kernel.secrets import WritableSecretsBackend

_SECRET = re.compile(r"[A-Za-z0-9/_+=.@!-]{1,512}")
_ARN = re.compile(r"arn:[\w-]+:secretsmanager:[\w-]+:\d{12}:secret:[A-Za-z0-9/_+=.@!-]+")
_PARAMETER = re.compile(r"/?[A-Za-z0-9_.-]+(/[A-Za-z0-9_.-]+)*")
_LONGEST_PARAMETER = 1_011


class AwsSecretsBackend(WritableSecretsBackend):
    """
    Secrets under names that begin with *prefix*, by *access* as `AwsAccess` has it.

    Nothing is kept: a rotated secret counts at once. Locks are parameters of Parameter Store whose
    names begin with *lock_prefix*; only who writes secrets needs the right to put them.
    """

    command: ClassVar[str]
    """The command that adds a secret, without its name."""

    def __init__(
        self,
        prefix: str = "",
        *,
        access: AwsAccess | Mapping[str, Any] | None = None,
        lock_prefix: str = "/automate/locks/",
    ) -> None:
        self.prefix: str = prefix
        self._lock_prefix = lock_prefix
        self._clients = AwsClients(AwsAccess.of(access))

    @abstractmethod
    def _parsed(self, key: str) -> SecretName:
        """Return the parts of *key*; raises `SecretNotFoundError` if no secret can have it."""

    @abstractmethod
    def _read(self, key: str, secret: str, name: SecretName) -> str:
        """Return the text of *secret*, in the version that *name* selects."""

    @abstractmethod
    def _write(self, secret: str, value: str) -> None:
        """Make *value* the newest version of *secret*, which is created if it isn't there."""

    @abstractmethod
    def _delete(self, secret: str) -> None:
        """Delete *secret* with its versions."""

    def get_secret(self, key: str) -> str:
        """Return the secret's text, or a field of it."""
        name = self._parsed(key)
        with self._asking(key):
            text = self._read(key, self.prefix + name.name, name)
        return field_of(key, name.field, text)

    def set_secret(self, key: str, value: str) -> None:
        """Write a new version; a secret that isn't there is created."""
        secret = self._writable(key)
        with self._asking(key):
            self._write(secret, value)

    def delete_secret(self, key: str) -> None:
        """Delete a secret at once, with its versions."""
        secret = self._writable(key)
        with suppress(SecretNotFoundError), self._asking(key):
            self._delete(secret)

    def remedy(self, key: str) -> str:
        """Give the command that adds it."""
        try:
            return self.command.format(name=self.prefix + self._parsed(key).name)
        except SecretNotFoundError:
            return ""

    @contextmanager
    def locked(self, key: str) -> Iterator[None]:
        """Hold a lock that processes on all machines share, for a minute at most."""
        name = hashlib.sha256(f"{self.name}:{self.prefix}{key}".encode()).hexdigest()[:32]
        lock = ParameterLock(self._clients, self._lock_prefix + name)
        with ExitStack() as held:
            with self._asking(key):
                held.enter_context(lock.held())
            yield

    def close(self) -> None:
        """Close the connections."""
        self._clients.close()

    def _writable(self, key: str) -> str:
        name = self._parsed(key)
        check_writable(key, name)
        return self.prefix + name.name

    @contextmanager
    def _asking(self, key: str) -> Iterator[None]:
        """Word the failures of AWS in the block as those of a look-up of *key*."""
        problem: SecretError
        try:
            yield
        except SecretError:
            raise
        except AutomateError as error:
            problem = secret_failure(key, error)
        else:
            return
        raise problem


class SecretsManagerBackend(AwsSecretsBackend):
    """
    Secrets of AWS Secrets Manager.

    A key is a secret's name: ``prod/crm``. ``prod/db#password`` is a field of a secret that is a
    JSON object, ``prod/crm?stage=AWSPREVIOUS`` and ``prod/crm?version=ID`` are other versions than
    the current one. Without a prefix a key may be a secret's ARN, of another account too.
    """

    name = "aws_secrets_manager"
    command = "aws secretsmanager create-secret --name {name}"

    def _parsed(self, key: str) -> SecretName:
        allowed = _ARN if not self.prefix and _ARN.match(key) else _SECRET
        return parse_key(key, allowed, "stage", "version")

    def _read(self, key: str, secret: str, name: SecretName) -> str:
        version = {"stage": "VersionStage", "version": "VersionId"}.get(name.selector or "")
        given = {version: name.value} if version else {}
        answer = self._clients.call("secretsmanager", "get_secret_value", SecretId=secret, **given)
        if answer.get("SecretBinary") is not None:
            raise SecretError(
                f"secret {key!r} is binary", hint="store text; encode what is binary as base64"
            )
        text: str = needed(answer, "SecretString", "secretsmanager get_secret_value")
        return text

    def _write(self, secret: str, value: str) -> None:
        # Twice, as another process may create it between.
        for last in (False, True):
            try:
                self._put("put_secret_value", SecretId=secret, SecretString=value)
                return
            except AutomateError as error:
                if last or aws_code(error) != "ResourceNotFoundException":
                    raise
            try:
                self._put("create_secret", Name=secret, SecretString=value)
                return
            except AutomateError as error:
                if aws_code(error) != "ResourceExistsException":
                    raise

    def _put(self, name: str, **values: str) -> None:
        # An empty answer, as of a proxy, is nobody's word that the value was kept.
        answer = self._clients.call("secretsmanager", name, **values)
        needed(answer, "ARN", f"secretsmanager {name}")

    def _delete(self, secret: str) -> None:
        # At once, without a time for its recovery.
        self._clients.call(
            "secretsmanager", "delete_secret", SecretId=secret, ForceDeleteWithoutRecovery=True
        )


class ParameterStoreBackend(AwsSecretsBackend):
    """
    Parameters of AWS Systems Manager, decrypted.

    A key is a parameter's name: ``/prod/crm-token``, or ``crm-token`` under the prefix ``/prod/``.
    ``/prod/db#password`` is a field of a parameter that is a JSON object, ``/prod/crm?version=3``
    and ``/prod/crm?label=tested`` are other versions than the newest. A value has 8 KiB at most.
    """

    name = "aws_parameter_store"
    command = "aws ssm put-parameter --type SecureString --name {name} --value …"

    def _parsed(self, key: str) -> SecretName:
        name = parse_key(key, _PARAMETER, "version", "label")
        full = self.prefix + name.name
        # AWS takes a name with a slash only if it begins with one.
        if ("/" in full and not full.startswith("/")) or len(full) > _LONGEST_PARAMETER:
            raise SecretNotFoundError(key)
        return name

    def _read(self, key: str, secret: str, name: SecretName) -> str:
        versioned = f"{secret}:{name.value}" if name.selector else secret
        answer = self._clients.call("ssm", "get_parameter", Name=versioned, WithDecryption=True)
        value: str = needed(needed(answer, "Parameter", "ssm"), "Value", "ssm get_parameter")
        return value

    def _write(self, secret: str, value: str) -> None:
        answer = self._clients.call(
            "ssm",
            "put_parameter",
            Name=secret,
            Value=value,
            Type="SecureString",
            Overwrite=True,
            # An advanced parameter, which costs, only where 4 KiB are not enough.
            Tier="Intelligent-Tiering",
        )
        # An empty answer, as of a proxy, is nobody's word that the value was kept.
        needed(answer, "Version", "ssm put_parameter")

    def _delete(self, secret: str) -> None:
        self._clients.call("ssm", "delete_parameter", Name=secret)
