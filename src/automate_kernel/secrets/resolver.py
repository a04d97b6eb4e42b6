"""The resolver: it gets secrets from the application's backends, in order."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager
from contextvars import ContextVar, Token
from dataclasses import dataclass

from automate_kernel.base.errors import (
    ConfigError,
    SecretDeniedError,
    SecretError,
    SecretNotFoundError,
    SecretUnavailableError,
    type_name,
)
from automate_kernel.base.tally import Tally
from automate_kernel.secrets.backends import SecretsBackend, WritableSecretsBackend
from automate_kernel.secrets.handles import LONGEST_SECRET, check_key
from automate_kernel.secrets.logs import get_logger
from automate_kernel.secrets.masking import strength_of, weakness_of
from automate_kernel.secrets.redaction import Redactor
from automate_kernel.secrets.tracebacks import mark

logger: logging.Logger = get_logger(__name__)

# The values of a `session`, by resolver and key. A context variable, so that a session
# belongs to one thread or one task, and follows an action into the thread that runs it.
_session: ContextVar[dict[tuple[int, str], str] | None] = ContextVar("session", default=None)


class _Session(AbstractContextManager["SecretResolver"]):
    """A block in which each key is looked up once. No generator: one is made for each call."""

    __slots__ = ("_resolver", "_token")

    def __init__(self, resolver: SecretResolver) -> None:
        self._resolver = resolver
        self._token: Token[dict[tuple[int, str], str] | None] | None = None

    def __enter__(self) -> SecretResolver:
        if _session.get() is None:
            self._token = _session.set({})
        return self._resolver

    def __exit__(self, *_: object) -> None:
        if self._token is not None:
            _session.reset(self._token)


@dataclass(frozen=True, slots=True)
class SecretStatus:
    """The finding of `SecretResolver.check` on one key, without its value."""

    key: str
    ok: bool
    backend: str = ""
    """The backend that has it."""
    problem: str = ""
    warning: str = ""
    """The reason for which the value, though it can be read, can't be hidden well."""


@dataclass(frozen=True, slots=True)
class SecretReport:
    """The findings of `SecretResolver.check`."""

    statuses: tuple[SecretStatus, ...]

    @property
    def ok(self) -> bool:
        """True if every key can be resolved."""
        return not self.problems

    @property
    def problems(self) -> tuple[SecretStatus, ...]:
        """The keys that can't be resolved, each with the reason."""
        return tuple(status for status in self.statuses if not status.ok)

    @property
    def warnings(self) -> tuple[SecretStatus, ...]:
        """The keys whose values are too short or common to be hidden well, each with the reason."""
        return tuple(status for status in self.statuses if status.warning)


class SecretResolver:
    """
    Gets secrets by key from *backends*, which are asked in order.

    Only "not found" leads to the next backend. A backend that refuses or fails ends the look-up
    with an error: falling through would quietly use an old value from further down. Every value
    enters the *redactor* before it is returned.

    No value is kept: a rotated secret counts at once. Within ``with resolver.session():`` each key
    is looked up only once.
    """

    def __init__(
        self,
        backends: SecretsBackend | Iterable[SecretsBackend] | Mapping[str, SecretsBackend] = (),
        redactor: Redactor | None = None,
    ) -> None:
        self.redactor: Redactor = redactor if redactor is not None else Redactor()
        self._backends = _named(backends)
        self._judged: set[str] = set()
        self.looks: Tally = Tally()
        """The look-ups in this process, by backend and outcome: found, missing, failed."""

    def __repr__(self) -> str:
        return f"<SecretResolver of {', '.join(name for name, _ in self._backends) or 'nothing'}>"

    def get(self, key: str) -> str:
        """Return the secret's value, from the first backend that has it."""
        known = self._known(key)
        if known is not None:
            return known
        for name, backend in self._backends:
            try:
                value: object = backend.get_secret(key)
            except Exception as error:
                problem = self._problem(key, name, error)
            else:
                return self._accepted(key, name, value)
            # Not while the backend's error is being handled: it may hold the value.
            if problem is not None:
                raise problem
        raise self._missing(key)

    async def aget(self, key: str) -> str:
        """Do the same as `get`, without blocking the event loop."""
        known = self._known(key)
        if known is not None:
            return known
        for name, backend in self._backends:
            try:
                looking: object = backend.aget_secret(key)
                if not inspect.isawaitable(looking):
                    raise SecretError(
                        f"aget_secret of backend {name} is no async def",
                        hint="write async def, or leave it out: get_secret runs in a thread then",
                    )
                value: object = await looking
            except Exception as error:
                problem = self._problem(key, name, error)
            else:
                return self._accepted(key, name, value)
            if problem is not None:
                raise problem
        raise self._missing(key)

    @property
    def backends(self) -> Mapping[str, SecretsBackend]:
        """The backends by their names, in the order in which they are asked."""
        return dict(self._backends)

    @property
    def writable(self) -> WritableSecretsBackend:
        """The first backend that can be written to. Raises `ConfigError` if there is none."""
        for _, backend in self._backends:
            if isinstance(backend, WritableSecretsBackend):
                return backend
        raise ConfigError(
            "there is no secrets backend that can be written to",
            hint='add one, such as WritableFileSecretsBackend("var/tokens")',
        )

    def session(self) -> AbstractContextManager[SecretResolver]:
        """Look each key up only once within the block, in this thread or task."""
        return _Session(self)

    def check(self, keys: Iterable[str]) -> SecretReport:
        """
        Try to resolve each of *keys*, past every cache, and report the result.

        The only sure test is to read the secret, so this reads it and forgets it.
        """
        return SecretReport(tuple(self._status(key) for key in sorted(set(keys))))

    def close(self) -> None:
        """Close the backends."""
        for name, backend in self._backends:
            try:
                backend.close()
            except Exception:
                logger.exception("closing the secrets backend %s failed", name)

    def _status(self, key: str) -> SecretStatus:
        for name, backend in self._backends:
            single = SecretResolver({name: backend}, self.redactor)
            single._judged.add(key)  # the report warns of it
            token = _session.set(None)
            try:
                value = single.get(key)
            except SecretNotFoundError:
                continue
            except SecretError as error:
                return SecretStatus(key, ok=False, backend=name, problem=str(error))
            finally:
                _session.reset(token)
            weakness = weakness_of(value)
            warning = f"the value of secret {key!r} {weakness}" if weakness else ""
            return SecretStatus(key, ok=True, backend=name, warning=warning)
        return SecretStatus(key, ok=False, problem=str(self._missing(key)))

    def _known(self, key: str) -> str | None:
        return (_session.get() or {}).get((id(self), check_key(key)))

    def _accepted(self, key: str, backend: str, value: object) -> str:
        """Return the *value*, unless it can't be hidden; warn once if it can't be hidden well."""
        if not isinstance(value, str):
            found = "None" if value is None else type_name(value)
            hint = "a backend returns text, or raises SecretNotFoundError(key)"
            if inspect.iscoroutine(value):
                value.close()
                hint = "get_secret is a plain def; aget_secret is the one that may be async"
            raise SecretError(f"backend {backend} gave {found} for secret {key!r}", hint=hint)
        if not value:
            raise SecretError(f"secret {key!r} is empty in backend {backend}")
        if len(value) > LONGEST_SECRET:
            message = (
                f"secret {key!r} in backend {backend} is longer than {LONGEST_SECRET} characters"
            )
            raise SecretError(message, hint="keep documents elsewhere, and their key here")
        strength = strength_of(value)
        if strength == "none":
            raise SecretError(
                f"the value of secret {key!r} {weakness_of(value)}",
                hint="put it in the config as it is, or give the secret a value of its own",
            )
        if strength == "weak" and key not in self._judged:
            self._judged.add(key)
            logger.warning("the value of secret %r %s", key, weakness_of(value))
        self.redactor.add(value)
        self.looks.add(backend, "found")
        session = _session.get()
        if session is not None:
            session[id(self), key] = value
        return value

    def _problem(self, key: str, backend: str, error: Exception) -> SecretError | None:
        """Return the error that ends the look-up, or None: the next backend is asked."""
        missing = isinstance(error, SecretNotFoundError)
        self.looks.add(backend, "missing" if missing else "failed")
        if missing:
            return None
        if isinstance(error, SecretError):
            # A backend's own words, but what else it has handed out may be in them.
            known = (SecretDeniedError, SecretUnavailableError, SecretError)
            kind = next(kind for kind in known if isinstance(error, kind))
            return kind(
                self.redactor.redact(error.message),
                hint=error.hint and self.redactor.redact(error.hint),
                code=error.code,
                retryable=error.retryable,
                retry_after=error.retry_after,
            )
        if isinstance(error, PermissionError):
            return SecretDeniedError(f"backend {backend} refused to read secret {key!r}")
        # The text of a stranger's error may show the request, with a token, or the response.
        message = f"backend {backend} failed on secret {key!r}: {type(error).__name__}"
        hint = "a missing key is reported by SecretNotFoundError(key)"
        problem = SecretUnavailableError(
            message, hint=hint if isinstance(error, KeyError) else None
        )
        mark(problem, error, self.redactor.redact)
        return problem

    def _missing(self, key: str) -> SecretNotFoundError:
        if not self._backends:
            return SecretNotFoundError(key, hint="no secrets backend is configured")
        names = ", ".join(name for name, _ in self._backends)
        remedies = [remedy for _, backend in self._backends if (remedy := backend.remedy(key))]
        message = f"secret {key!r} was not found in {names}"
        return SecretNotFoundError(key, message, hint=", or ".join(remedies) or None)


def _named(
    backends: SecretsBackend | Iterable[SecretsBackend] | Mapping[str, SecretsBackend],
) -> tuple[tuple[str, SecretsBackend], ...]:
    if isinstance(backends, (SecretsBackend, type)):
        backends = (backends,)
    if isinstance(backends, Mapping):
        return tuple(backends.items())
    backends = tuple(backends)
    for backend in backends:
        if isinstance(backend, type):
            raise ConfigError(
                f"a secrets backend can't be the class {backend.__name__}",
                hint=f"pass an instance: {backend.__name__}(…)",
            )
    return tuple((backend.name or type(backend).__name__, backend) for backend in backends)
