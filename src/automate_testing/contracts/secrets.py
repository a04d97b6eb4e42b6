"""The contract of a secrets backend, as tests that its author inherits."""

from __future__ import annotations

import asyncio
import logging
import pickle
import traceback
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import pytest

from automate_kernel.base.errors import SecretDeniedError, SecretError, SecretNotFoundError
from automate_kernel.secrets import (
    MemorySecretsBackend,
    SecretResolver,
    SecretsBackend,
    WritableSecretsBackend,
)
from automate_testing.contracts.hostile_service import hostile_service
from automate_testing.contracts.packages import require_no_drift

__all__ = [
    "SecretsBackendContract",
    "SecretsServiceContract",
    "WritableSecretsBackendContract",
    "WritableSecretsServiceContract",
]

_ODD_PATHS = ["../known", "/etc/passwd", "known/../known", "%2e%2e", "."]
_ODD_TEXTS = ["a" * 500, "ключ", "a b", "a\nb"]
_DENIED = {"unauthenticated", "expired_token", "forbidden"}
_ENDLESS = {"silent", "dripping"}
_AWAY = {"rate_limited", "failing", "unavailable", "cut_off", "hung_up", *_ENDLESS}
_UNREADABLE = {
    "not_found", "truncated", "page_for_people", "empty", "no_text", "nested", "long_number",
    "other_shape", "broken_chunks", "huge", "bomb", "redirect_for_ever", "redirect_to_nowhere",
    "redirect_to_private_address",
}  # fmt: skip
# A service may have nothing to say of a deletion.
_SILENT = {
    "empty", "no_text", "nested", "long_number", "other_shape", "page_for_people", "truncated",
}  # fmt: skip
_SHORT_SECONDS, _LONG_SECONDS = 0.5, 30.0
_OLD = "an-old-value-of-the-next-backend"


class _Secret(NamedTuple):
    """A secret that the backend has, and a key that it doesn't have."""

    key: str
    value: str
    missing_key: str


class SecretsBackendContract:
    """
    Subclass it and give it a fixture ``backend``.

    No failure may be taken for a missing key. That is tested on the backends of `broken`. For a
    backend that asks a service over HTTP, `SecretsServiceContract` tests it too.
    """

    @pytest.fixture
    def known_key(self) -> str:
        """Return a key that the backend has."""
        return "known"

    @pytest.fixture
    def known_value(self) -> str:
        """Return the value under `known_key`: long and odd, so that it stands nowhere by chance."""
        return 's3cr3t/vàlue"of the+known=key'

    @pytest.fixture
    def missing_key(self) -> str:
        """Return a key that the backend doesn't have."""
        return "not-there"

    @pytest.fixture
    def backend(self) -> SecretsBackend:
        """Make a backend with `known_value` under `known_key`, and without `missing_key`."""
        raise NotImplementedError("give the contract a `backend` fixture")

    @pytest.fixture
    def broken(self) -> Mapping[str, SecretsBackend]:
        """
        Make backends that can't look at their place, each under the name of its failure.

        Its disk is away, its key is wrong, what it reads is damaged: each way that can be made.
        """
        return {}

    @pytest.fixture
    def its(self, known_key: str, known_value: str, missing_key: str) -> _Secret:
        """Return the three of them, as the tests take them."""
        return _Secret(known_key, known_value, missing_key)

    def test_is_a_secrets_backend(self, backend: SecretsBackend) -> None:
        """The registry recognizes it by its class."""
        assert isinstance(backend, SecretsBackend)

    def test_its_manifest_says_the_same(self, backend: SecretsBackend) -> None:
        """If the package has an ``automate.json``, it agrees with the code."""
        require_no_drift(type(backend))

    def test_known_key_gives_its_value(self, backend: SecretsBackend, its: _Secret) -> None:
        """The value comes back exactly as stored, as text."""
        value = backend.get_secret(its.key)
        assert type(value) is str
        assert value == its.value

    def test_reading_again_gives_the_same(self, backend: SecretsBackend, its: _Secret) -> None:
        """A look-up uses nothing up."""
        assert [backend.get_secret(its.key) for _ in range(3)] == [its.value] * 3

    def test_missing_key_is_named(self, backend: SecretsBackend, its: _Secret) -> None:
        """Neither None nor empty text: only the error lets the next backend be asked."""
        with pytest.raises(SecretNotFoundError) as caught:
            backend.get_secret(its.missing_key)
        assert caught.value.key == its.missing_key
        assert its.missing_key in str(caught.value)

    def test_no_failure_is_a_missing_key(
        self, broken: Mapping[str, SecretsBackend], its: _Secret
    ) -> None:
        """Else the next backend would be asked, which may have an old value."""
        if not broken:
            pytest.skip("give the contract a fixture `broken`: backends whose place fails")
        for failure, backend in broken.items():
            for key in (its.key, its.missing_key):
                _failed(failure, lambda: backend.get_secret(key), its)  # noqa: B023
                _failed(failure, lambda: asyncio.run(backend.aget_secret(key)), its)  # noqa: B023
                _failed(failure, lambda: _behind(backend, key), its)  # noqa: B023

    @pytest.mark.parametrize("key", _ODD_PATHS + _ODD_TEXTS)
    def test_odd_key_is_not_found(self, backend: SecretsBackend, key: str) -> None:
        """A key from a workflow can't reach around the backend's own place."""
        with pytest.raises(SecretNotFoundError):
            backend.get_secret(key)

    def test_missing_key_shows_no_value(self, backend: SecretsBackend, its: _Secret) -> None:
        """The error's text and traceback hold no secret that was read before."""
        backend.get_secret(its.key)
        with pytest.raises(SecretNotFoundError) as caught:
            backend.get_secret(its.missing_key)
        shown = "".join(traceback.format_exception(caught.type, caught.value, caught.tb))
        assert its.value not in shown

    def test_value_is_not_in_repr_or_str(self, backend: SecretsBackend, its: _Secret) -> None:
        """A backend can be logged, before and after a look-up."""
        for _ in range(2):
            assert its.value not in f"{backend!r} {backend}"
            backend.get_secret(its.key)

    def test_value_is_not_logged(
        self, backend: SecretsBackend, its: _Secret, caplog: pytest.LogCaptureFixture
    ) -> None:
        """A look-up writes no value to the log, at any level."""
        with caplog.at_level(logging.DEBUG):
            backend.get_secret(its.key)
        assert its.value not in caplog.text

    def test_value_is_not_printed(
        self, backend: SecretsBackend, its: _Secret, capfd: pytest.CaptureFixture[str]
    ) -> None:
        """A look-up writes no value to the terminal."""
        backend.get_secret(its.key)
        out, err = capfd.readouterr()
        assert its.value not in out + err

    def test_concurrent_reads(self, backend: SecretsBackend, its: _Secret) -> None:
        """Threads that read at once all get the right answer."""

        def read(number: int) -> str:
            if number % 4:
                return backend.get_secret(its.key)
            with pytest.raises(SecretNotFoundError):
                backend.get_secret(its.missing_key)
            return its.value

        with ThreadPoolExecutor(8) as pool:
            assert set(pool.map(read, range(64))) == {its.value}

    def test_async_read_equals_sync_read(self, backend: SecretsBackend, its: _Secret) -> None:
        """`aget_secret` gives the same value, and the same error."""

        async def read() -> list[str]:
            with pytest.raises(SecretNotFoundError):
                await backend.aget_secret(its.missing_key)
            return list(await asyncio.gather(*(backend.aget_secret(its.key) for _ in range(8))))

        assert asyncio.run(read()) == [its.value] * 8

    def test_async_read_in_a_second_loop(self, backend: SecretsBackend, its: _Secret) -> None:
        """Nothing is tied to the event loop of the first look-up."""
        for _ in range(2):
            assert asyncio.run(backend.aget_secret(its.key)) == its.value

    def test_error_survives_pickling(self, backend: SecretsBackend, its: _Secret) -> None:
        """The error can cross to another process, with its key."""
        with pytest.raises(SecretNotFoundError) as caught:
            backend.get_secret(its.missing_key)
        assert pickle.loads(pickle.dumps(caught.value)).key == its.missing_key  # noqa: S301

    def test_works_behind_the_resolver(self, backend: SecretsBackend, its: _Secret) -> None:
        """The kernel's resolver gets the value, redacts it, and reports a missing key."""
        resolver = SecretResolver(backend)
        assert resolver.get(its.key) == its.value
        assert its.value not in resolver.redactor.redact(f"it is {its.value}")
        with pytest.raises(SecretNotFoundError):
            resolver.get(its.missing_key)

    def test_close_can_be_called_twice(self, backend: SecretsBackend) -> None:
        """Closing is safe at any time."""
        backend.close()
        backend.close()


def _behind(backend: SecretsBackend, key: str) -> str:
    """Look *key* up as a kernel does, with a backend behind that has an old value."""
    return SecretResolver([backend, MemorySecretsBackend({key: _OLD})]).get(key)


def _failed(failure: str, call: Callable[[], object], its: _Secret) -> Exception:
    try:
        value = call()
    except SecretNotFoundError:
        pytest.fail(f"{failure}: it is taken for a missing key")
    except Exception as error:
        shown = "".join(traceback.format_exception(error))
        assert its.value not in shown, f"{failure}: the error shows the value"
        return error
    assert value != _OLD, f"{failure}: the next backend was asked"
    raise AssertionError(f"{failure}: it is taken for a success")


def _check_kind(failure: str, manner: str, error: Exception) -> None:
    assert isinstance(error, SecretError), f"{failure}: it raised {error!r}"
    if manner in _DENIED:
        assert isinstance(error, SecretDeniedError), f"{failure}: not denied, but {error!r}"
    if manner in _DENIED | _AWAY:
        retryable = manner in _AWAY
        assert error.retryable is retryable, f"{failure}: retryable is {error.retryable}: {error}"


class SecretsServiceContract(SecretsBackendContract):
    """
    The contract of a backend that asks a service over HTTP, which may fail in each way.

    Give it `backend_at` and `answer_to` beside what `SecretsBackendContract` wants.
    """

    def backend_at(self, url: str, timeout_seconds: float) -> Any:
        """Return a backend that asks the service at *url*."""
        raise NotImplementedError("give the contract a `backend_at`")

    def answer_to(self, method: str, path: str) -> Any:
        """Return the right answer of the service, JSON or bytes, with a secret `known_key`."""
        raise NotImplementedError("give the contract an `answer_to`")

    def test_no_failure_of_its_service_is_a_missing_key(self, its: _Secret) -> None:
        """Neither at the first request nor at the last, as after a login; and each has its kind."""
        self._try_failures(lambda backend: _behind(backend, its.key), its)

    def _try_failures(
        self, call: Callable[[Any], object], its: _Secret, without: Collection[str] = ()
    ) -> None:
        requests = self._requests(call)
        for manner in sorted((_DENIED | _AWAY | _UNREADABLE).difference(without)):
            seconds = _SHORT_SECONDS if manner in _ENDLESS else _LONG_SECONDS
            for well in sorted({0, requests - 1}):
                failure = f"{manner}, from request {well + 1} on"
                with hostile_service(self.answer_to) as service:
                    service.manner, service.well = manner, well
                    backend = self.backend_at(service.url, seconds)
                    try:
                        error = _failed(failure, lambda: call(backend), its)  # noqa: B023
                    finally:
                        service.stopping.set()
                        backend.close()
                    assert not service.reached, f"{failure}: it followed the redirect"
                _check_kind(failure, manner, error)

    def _requests(self, call: Callable[[Any], object]) -> int:
        """Return the number of requests that *call* makes while the service is well."""
        with hostile_service(self.answer_to) as service:
            backend = self.backend_at(service.url, _LONG_SECONDS)
            try:
                call(backend)
                return len(service.paths)
            finally:
                backend.close()


class WritableSecretsBackendContract(SecretsBackendContract):
    """Subclass it and give it a fixture ``writable``: a backend without secrets."""

    @pytest.fixture
    def writable(self) -> WritableSecretsBackend:
        """Make a backend without secrets."""
        raise NotImplementedError("give the contract a `writable` fixture")

    @pytest.fixture
    def backend(
        self, writable: WritableSecretsBackend, known_key: str, known_value: str
    ) -> SecretsBackend:
        """Write the secret that the tests read."""
        writable.set_secret(known_key, known_value)
        return writable

    def test_a_new_value_takes_the_place_of_the_old(self, writable: WritableSecretsBackend) -> None:
        """At once, and for every reader."""
        for value in ("first-value", "second-value", '{"json": "ünïcode\\n"}'):
            writable.set_secret("renewed", value)
            assert writable.get_secret("renewed") == value

    def test_what_is_deleted_is_not_found(self, writable: WritableSecretsBackend) -> None:
        """Deleting again does no harm."""
        writable.set_secret("gone", "value")
        writable.delete_secret("gone")
        writable.delete_secret("gone")
        with pytest.raises(SecretNotFoundError):
            writable.get_secret("gone")

    def test_a_lock_has_one_holder(self, writable: WritableSecretsBackend) -> None:
        """Several threads read, decide and write, and none undoes what another did."""
        writable.set_secret("count", "n0")

        def count() -> None:
            for _ in range(5):
                with writable.locked("count"):
                    number = int(writable.get_secret("count")[1:])
                    writable.set_secret("count", f"n{number + 1}")

        with ThreadPoolExecutor(4) as pool:
            for each in [pool.submit(count) for _ in range(4)]:
                each.result()
        assert writable.get_secret("count") == "n20"

    def test_a_lock_is_free_after_an_error(self, writable: WritableSecretsBackend) -> None:
        """It is not held by a block that failed."""
        with pytest.raises(ZeroDivisionError), writable.locked("key"):
            raise ZeroDivisionError
        with writable.locked("key"):
            pass


class WritableSecretsServiceContract(SecretsServiceContract, WritableSecretsBackendContract):
    """The contract of a writable backend that asks a service over HTTP."""

    def test_no_failure_of_its_service_is_a_write(self, its: _Secret) -> None:
        """Nobody takes a secret for written that is not."""
        self._try_failures(lambda backend: backend.set_secret(its.key, its.value), its)

    def test_no_failure_of_its_service_is_a_deletion(self, its: _Secret) -> None:
        """Or an account would be taken for disconnected while its tokens are still there."""
        self._try_failures(lambda backend: backend.delete_secret(its.key), its, _SILENT)
