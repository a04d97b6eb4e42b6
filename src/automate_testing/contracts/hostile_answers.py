"""
The contract of a plugin that talks to a network, as tests that its author inherits.

::

    class TestCrmAgainstHostileAnswers(HostileAnswersContract):
        plugin, operation, example_input = Crm, "get_user", {"id": 7}
        answer = {"id": 7, "name": "Ada"}

        def config(self, url):
            here = {"base_url": url, "allow_private_networks": ["127.0.0.1"]}
            return {**here, "timeout_seconds": self.timeout_seconds}
"""

from __future__ import annotations

import json
import logging
import socket
import threading
import time
import traceback
import tracemalloc
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import pytest

from automate_kernel.base.errors import AutomateError, ErrorCodes, SecretNotFoundError
from automate_kernel.kernel import Kernel
from automate_kernel.operations.invoker import logger as invoker_logger
from automate_kernel.operations.plugin import Plugin
from automate_kernel.secrets import SecretsBackend
from automate_testing.contracts.hostile_service import WAIT_SECONDS, HostileService, hostile_service

__all__ = ["HostileAnswersContract"]

_MIB = 1024 * 1024
_MOST_REDIRECTS = 50
# A service may ask for any wait, and a step would wait for it.
_MOST_WAIT_SECONDS = 86_400.0
_AWAY = {ErrorCodes.UNAVAILABLE, ErrorCodes.INTERNAL}
_ENDLESS = {"silent", "dripping", "dripping_headers", "broken_chunks"}
_CALLING = "automate-hostile-answers"
_SHORT_SECONDS, _LONG_SECONDS = 2.0, 30.0
# For a machine so busy that no request was sent in the short time.
_LONGER_SECONDS = (7.0, 20.0)
_LATE = {ErrorCodes.DEADLINE_EXCEEDED, ErrorCodes.UNAVAILABLE}


@dataclass(frozen=True, slots=True)
class _Expected:
    """The codes that fit an answer, and whether another try can help; None where both fit."""

    codes: frozenset[ErrorCodes] | set[ErrorCodes] | None = None
    retryable: bool | None = None


_FAILURES: dict[str, _Expected] = {
    "unauthenticated": _Expected({ErrorCodes.UNAUTHENTICATED}, False),
    "expired_token": _Expected({ErrorCodes.UNAUTHENTICATED}, False),
    "forbidden": _Expected({ErrorCodes.PERMISSION_DENIED}, False),
    "not_found": _Expected({ErrorCodes.NOT_FOUND}, False),
    "rate_limited": _Expected({ErrorCodes.RESOURCE_EXHAUSTED}, True),
    "rate_limited_until": _Expected({ErrorCodes.RESOURCE_EXHAUSTED}, True),
    "rate_limited_for_a_year": _Expected({ErrorCodes.RESOURCE_EXHAUSTED}, True),
    "rate_limited_before": _Expected({ErrorCodes.RESOURCE_EXHAUSTED}, True),
    "failing": _Expected(_AWAY, True),
    "unavailable": _Expected(_AWAY, True),
    "silent": _Expected(_LATE, True),
    "dripping": _Expected(_LATE, True),
    "dripping_headers": _Expected(_LATE, True),
    "endless_headers": _Expected(),
    "cut_off": _Expected(_AWAY, True),
    # Some clients wait for an end that they have missed.
    "broken_chunks": _Expected(_AWAY | _LATE, True),
    "hung_up": _Expected(_AWAY, True),
    "redirect_for_ever": _Expected(),
    "redirect_to_nowhere": _Expected(),
    "huge": _Expected(None, False),
    "bomb": _Expected(None, False),
}
_UNREADABLE: dict[str, _Expected] = {
    "truncated": _Expected(None, True),
    "page_for_people": _Expected(None, True),
    "other_shape": _Expected(),
    "empty": _Expected(),
    "no_text": _Expected(),
    "nested": _Expected(),
    "long_number": _Expected(),
}


class _AnySecret(SecretsBackend):
    """Has one value under every key, or nothing."""

    def __init__(self, value: str | None) -> None:
        self._value = value
        self.keys: list[str] = []

    def get_secret(self, key: str) -> str:
        self.keys.append(key)
        if self._value is None:
            raise SecretNotFoundError(key)
        return self._value


@dataclass(frozen=True, slots=True)
class _Outcome:
    """The end of a call: its error or its output, all that is shown, its memory at the most."""

    error: AutomateError | None
    output: Any
    shown: str
    peak_bytes: int = 0
    defect: bool = False
    """True if the kernel takes the error for a mistake in somebody's code."""


class HostileAnswersContract:
    """
    Calls one operation of a plugin through a kernel, while its service misbehaves in each way.

    A subclass names *plugin*, *operation* and an *example_input*. *answer* is the JSON that the
    service gives when it is well, or bytes as they are, with their *content_type*. `config` returns
    the plugin's config for a service at *url*: with the time limit `timeout_seconds`, and with
    127.0.0.1 as the only private address that it may reach. Every secret that the plugin looks up,
    or has as ``$secret:KEY`` in its config, is *secret*.

    It asserts the error's code, and if and when the call is to be tried again. Time and memory stay
    within *most_seconds* and *most_bytes*. Nothing shows the secret: no error, traceback, log,
    output or repr. Set *reads_json* to False for an operation that returns answers as they are:
    then an answer that can't be read may be an output.
    """

    plugin: ClassVar[type[Plugin]]
    operation: ClassVar[str]
    example_input: ClassVar[Mapping[str, Any]] = {}
    answer: ClassVar[Any] = {}
    content_type: ClassVar[str] = "application/json"
    secret: ClassVar[str] = "canary-7Qm2xVb91tZkP0eL"  # noqa: S105 - of nothing
    reads_json: ClassVar[bool] = True
    most_seconds: ClassVar[float] = 10.0
    most_bytes: ClassVar[int] = 64 * _MIB
    _served: HostileService | None = None
    _short_seconds: float = _SHORT_SECONDS

    @property
    def timeout_seconds(self) -> float:
        """
        A time limit for the plugin: 2 seconds for a service that never ends, else 30.

        More than 2 where the plugin has sent no request within them.
        """
        # A busy machine may take its time with all that ends, within *most_seconds*.
        endless = self._served is not None and self._served.manner in _ENDLESS
        return self._short_seconds if endless else _LONG_SECONDS

    def config(self, url: str) -> Mapping[str, Any]:
        """Return the plugin's config for a service at *url*."""
        raise NotImplementedError("override `config`")

    def answer_to(self, method: str, path: str) -> Any:
        """Return the right answer to a request, JSON or bytes: by default *answer* to each."""
        return self.answer

    @pytest.fixture
    def service(self) -> Iterator[HostileService]:
        """Serve on this machine."""
        with hostile_service(self.answer_to, self.content_type) as service:
            self._served = service
            yield service

    def test_it_works_with_a_service_that_is_well(
        self, service: HostileService, caplog: pytest.LogCaptureFixture
    ) -> None:
        """Else the failures of the other tests would say nothing."""
        outcome = self._outcome(caplog, service.url)
        assert outcome.error is None, f"it fails without a reason: {outcome.error}"
        assert service.paths, "it sent no request; does its config use the url?"

    @pytest.mark.parametrize("manner", list(_FAILURES))
    def test_a_failure_has_its_code(
        self, manner: str, service: HostileService, caplog: pytest.LogCaptureFixture
    ) -> None:
        """The code fits, and says whether another try can help."""
        service.manner = manner
        outcome = self._outcome(caplog, service.url)
        for seconds in _LONGER_SECONDS if manner in _ENDLESS else ():
            if not service.paths and seconds < self.most_seconds:
                self._short_seconds = seconds
                outcome = self._outcome(caplog, service.url)
        assert service.paths, "it sent no request; does its config use the url?"
        error = self._failed(outcome, _FAILURES[manner])
        if manner in ("rate_limited", "rate_limited_until"):
            assert error.retry_after == WAIT_SECONDS, "Retry-After is lost"
        if error.retry_after is not None:
            assert 0 <= error.retry_after <= _MOST_WAIT_SECONDS, "it believes any Retry-After"
        assert len(service.paths) <= _MOST_REDIRECTS

    @pytest.mark.parametrize("manner", list(_UNREADABLE))
    def test_an_answer_that_can_not_be_read_is_a_failure(
        self, manner: str, service: HostileService, caplog: pytest.LogCaptureFixture
    ) -> None:
        """Half an answer is never taken for a whole one."""
        service.manner = manner
        outcome = self._outcome(caplog, service.url)
        if self.reads_json or outcome.error is not None:
            self._failed(outcome, _UNREADABLE[manner])

    def test_an_answer_of_another_type_is_read_or_told(
        self, service: HostileService, caplog: pytest.LogCaptureFixture
    ) -> None:
        """JSON that calls itself something else, as many services do, is no defect of a plugin."""
        service.manner = "other_type"
        outcome = self._outcome(caplog, service.url)
        if outcome.error is not None:
            self._failed(outcome, _Expected())

    def test_a_cookie_is_not_kept(
        self, service: HostileService, caplog: pytest.LogCaptureFixture
    ) -> None:
        """It may be a session, which the next call, of another tenant perhaps, would go on with."""
        service.manner = "cookie"
        self._outcome(caplog, service.url, calls=2)
        assert len(service.paths) > 1
        assert not service.cookies, "it sends the cookie that an answer before had set"

    def test_a_redirect_leads_to_no_private_address(
        self, service: HostileService, caplog: pytest.LogCaptureFixture
    ) -> None:
        """A service can't turn its callers against the network that they are in."""
        if not service.elsewhere:
            pytest.skip("this machine has no address 127.0.0.2")
        service.manner = "redirect_to_private_address"
        outcome = self._outcome(caplog, service.url)
        assert not service.reached, "it followed the redirect to 127.0.0.2"
        self._failed(outcome, _Expected(None, False))

    def test_a_service_that_is_not_there_is_unavailable(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        """It may come back."""
        with closing(socket.socket()) as unused:
            unused.bind(("127.0.0.1", 0))  # bound, and nobody listens
            url = f"http://127.0.0.1:{unused.getsockname()[1]}"
            self._failed(self._outcome(caplog, url), _Expected(_AWAY, True))

    def test_a_wrong_config_is_not_tried_again(self, caplog: pytest.LogCaptureFixture) -> None:
        """It stays wrong."""
        self._failed(self._outcome(caplog, "no url"), _Expected(None, False))

    def test_without_its_secret_nothing_is_sent(
        self, service: HostileService, caplog: pytest.LogCaptureFixture
    ) -> None:
        """A request without its credentials has no use."""
        known, missing = _AnySecret(self.secret), _AnySecret(None)
        self._outcome(caplog, service.url, known)
        if not known.keys:
            pytest.skip("it uses no secret")
        service.paths.clear()
        outcome = self._outcome(caplog, service.url, missing)
        error = self._failed(outcome, _Expected(None, False))
        assert missing.keys[0] in str(error), "the error doesn't name the secret that is missing"
        assert not service.paths

    # -- one call ----------------------------------------------------------------------------

    def _failed(self, outcome: _Outcome, expected: _Expected) -> AutomateError:
        error = outcome.error
        assert error is not None, f"it took the answer for right: {str(outcome.output)[:200]}"
        if expected.codes is not None:
            assert error.code in expected.codes, f"{error.code} is not the code of: {error}"
        else:
            assert not outcome.defect, f"it is taken for a defect of the plugin itself: {error}"
        if expected.retryable is not None:
            assert error.retryable is expected.retryable, f"{error.code}: {error}"
        return error

    def _outcome(
        self,
        caplog: pytest.LogCaptureFixture,
        url: str,
        secrets: _AnySecret | None = None,
        *,
        calls: int = 1,
    ) -> _Outcome:
        """Call the operation, and check what holds in every case."""
        secrets = secrets if secrets is not None else _AnySecret(self.secret)
        key = self.plugin.key
        kernel = Kernel(
            plugins=[self.plugin], discover=False, config={key: self.config(url)}, secrets=[secrets]
        )
        caplog.clear()
        try:
            with caplog.at_level(logging.DEBUG):
                for _ in range(calls):
                    outcome = self._timed(kernel, f"{key}.{self.operation}")
        finally:
            kernel.close()
        assert outcome.peak_bytes <= self.most_bytes, (
            f"it took {outcome.peak_bytes // _MIB} MiB of memory"
        )
        shown = outcome.shown + caplog.text
        assert self.secret not in shown, f"the secret is shown: {_around(shown, self.secret)}"
        # The kernel's own word on an exception that the plugin was not ready for.
        defect = any(
            each.levelno >= logging.ERROR and each.name == invoker_logger.name
            for each in caplog.records
        )
        return replace(outcome, defect=defect)

    def _timed(self, kernel: Kernel, operation: str) -> _Outcome:
        found: list[_Outcome] = []
        calling = threading.Thread(
            target=lambda: found.append(self._called(kernel, operation)), name=_CALLING, daemon=True
        )
        # Memory is traced from here, for a call that isn't done in time ends long after this test.
        with _traced() as peak:
            begin = time.monotonic()
            calling.start()
            calling.join(self.most_seconds)
            seconds = time.monotonic() - begin
            peak_bytes = peak()
        assert found, (
            f"it was not done after {seconds:.1f} seconds: bound the whole request's time, and"
            " return a config() with a time-out well below most_seconds"
        )
        return replace(found[0], peak_bytes=peak_bytes)

    def _called(self, kernel: Kernel, operation: str) -> _Outcome:
        output: Any = None
        error: AutomateError | None = None
        shown = ""
        try:
            output = kernel.invoke(operation, dict(self.example_input))
            shown = json.dumps(output)
        except AutomateError as caught:
            error = caught
            shown = "".join(traceback.format_exception(caught)) + repr(caught) + str(vars(caught))
        return _Outcome(error, output, shown + self._repr_of(kernel))

    def _repr_of(self, kernel: Kernel) -> str:
        for find in (kernel.connector, kernel.provider):
            try:
                found = find(self.plugin.key)
            except AutomateError:
                continue
            return repr(found) + str(found)
        return ""


@contextmanager
def _traced() -> Iterator[Callable[[], int]]:
    """Trace memory for the block; give what tells the most bytes that were taken in it so far."""
    tracing = tracemalloc.is_tracing()
    if not tracing:
        tracemalloc.start(1)
    try:
        tracemalloc.reset_peak()
        before = tracemalloc.get_traced_memory()[0]
        yield lambda: tracemalloc.get_traced_memory()[1] - before
    finally:
        if not tracing:
            tracemalloc.stop()


def _around(text: str, found: str) -> str:
    place = text.index(found)
    return repr(text[max(0, place - 80) : place] + "[here]")
