"""The common base of both secrets backends: prefix, access, lock, wording of failures."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

from automate_aws.access import AwsAccess
from automate_aws.clients import AwsClients
from automate_aws.parameter_lock import ParameterLock
from automate_aws.secret_names import secret_failure
from automate_kernel.base.errors import AutomateError, SecretError
from automate_kernel.secrets import WritableSecretsBackend


class AwsSecretsBackend(WritableSecretsBackend):
    """
    Secrets under names that begin with *prefix*, by *access* as `AwsAccess` has it.

    Nothing is kept: a rotated secret counts at once. Locks are parameters of Parameter Store whose
    names begin with *lock_prefix*; only who writes secrets needs the right to put them.
    """

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
