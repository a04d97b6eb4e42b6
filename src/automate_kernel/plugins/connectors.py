"""
Connectors: the actions and triggers of an external service.

::

    class Slack(Connector):
        key = "slack"
        display_name = "Slack"

        @action(idempotent=True)
        async def post_message(self, channel: str, text: str) -> dict[str, str]:
            token = await self.ctx.secrets.aget(self.config["token_secret"])
            ...
"""

from __future__ import annotations

import inspect
import logging
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeVar, overload

from automate_kernel.base.arguments import check_object
from automate_kernel.base.errors import (
    AutomateError,
    ConfigError,
    ErrorCodes,
    SecretUnavailableError,
    type_name,
)
from automate_kernel.operations.context import ConnectorContext
from automate_kernel.operations.field_options import FieldOption, options
from automate_kernel.operations.interruption import is_interruption
from automate_kernel.operations.plugin import Plugin
from automate_kernel.operations.schemas.checks import (
    Schema,
    invalid,
    is_model,
    schema_problems,
)
from automate_kernel.operations.spec import OperationSpec, decorating, marked_operations
from automate_kernel.secrets.logs import get_logger
from automate_kernel.secrets.tracebacks import log_error, trace_of
from automate_kernel.triggers.polls.spec import PolledEvent, PollResult, PollSpec, poll, polls_of

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from automate_kernel.operations.spec import OperationOptions
    from automate_kernel.triggers.webhooks.request import Ignored

__all__ = [
    "ActionSpec",
    "Connector",
    "ConnectorContext",
    "FieldOption",
    "PollResult",
    "PollSpec",
    "PolledEvent",
    "TriggerSpec",
    "action",
    "options",
    "poll",
]

logger: logging.Logger = get_logger(__name__)
F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True)
class ActionSpec(OperationSpec):
    """The input and output of one action of a connector."""


@dataclass(frozen=True, slots=True)
class TriggerSpec:
    """
    One kind of webhook that a service sends.

    *signature* is a scheme of `automate_kernel.triggers.webhooks`; without one the connector's own
    `Connector.verify_webhook` decides. *event_name* is the event's name in workflows; the default
    is ``connector.trigger``.

    *delivery_id_header* names the header that is the same when the service sends a delivery again.
    Without it, or where a request has it not exactly once, the scheme knows the delivery's id.
    With *replay_guard* ``"on"`` a repeated delivery starts nothing. With ``"required"`` a delivery
    without the service's own id is refused as well. With ``"off"`` each request is an event.

    *events* chooses the requests that are events of this trigger; all others are accepted and start
    nothing. It holds one or more of the service's names (``"invoice.paid"``,
    ``["push", "pull_request.*"]``), for schemes that know the name, or values of headers:
    ``{"X-GitHub-Event": "push"}``. Workflows see the headers in *keep_headers*, as
    ``event.headers["x-github-event"]``; a header that proves the sender can't be among them.

    An event is answered with 202 and its item's id. With *answer*, a JSON object, it is answered
    with 200 and this: for services that insist on 200, or show people what they get.
    """

    name: str
    verification_method: str = "hmac"
    payload_schema: Schema = field(default=None, hash=False)
    description: str = ""
    signature: Any | None = field(default=None, hash=False)
    delivery_id_header: str | None = None
    event_name: str | None = None
    events: str | Sequence[str] | Mapping[str, str | Sequence[str]] | None = field(
        default=None, hash=False
    )
    keep_headers: Sequence[str] = ()
    replay_guard: Literal["on", "required", "off"] = "on"
    answer: Mapping[str, Any] | None = field(default=None, hash=False)

    def __post_init__(self) -> None:
        for problem, hint in self._problems():
            raise ConfigError(f"trigger {self.name!r}: {problem}", hint=hint)
        check_object(self.answer, f"trigger {self.name!r}: answer", 'answer={"ok": True}')

    def _problems(self) -> Iterator[tuple[str, str]]:
        if not isinstance(self.name, str) or not self.name:
            given = "empty" if self.name == "" else type_name(self.name)
            yield f"its name can't be {given}", 'write TriggerSpec("received")'
        if self.replay_guard not in _GUARDS:
            yield f"replay_guard can't be {self.replay_guard!r}", f"use {', '.join(_GUARDS)}"
        if isinstance(self.keep_headers, str):
            yield "keep_headers is text", f"write keep_headers=[{self.keep_headers!r}]"
        for name in self.keep_headers:
            if _SECRETIVE.search(name):
                yield (
                    f"the header {name!r} can't be kept",
                    "it may prove who sent a request, and what is kept is stored and shown",
                )
        if problem := _scheme_problem(self.signature):
            yield problem
        schema = self.payload_schema
        if not (schema is None or is_model(schema) or isinstance(schema, Mapping)):
            yield (
                f"its payload_schema can't be {type_name(schema)}",
                "give a pydantic model class or a JSON Schema as a dict",
            )
        names_events = callable(getattr(self.signature, "event_name", None))
        if not (self.events is None or isinstance(self.events, Mapping) or names_events):
            yield (
                "its scheme doesn't tell what an event is called",
                'name a header: events={"X-Event": "push"}',
            )

    def wants(self, headers: Any, raw_body: bytes) -> bool:
        """Return True if a verified request is one of `events`."""
        if self.events is None:
            return True
        if not isinstance(self.events, Mapping):
            name = self.signature.event_name(headers, raw_body)  # type: ignore[union-attr]
            return name is not None and _matches(name, self.events)
        found = _headers_of(headers)
        return all(
            (value := found.get(name)) is not None and _matches(value.strip(), wanted)
            for name, wanted in self.events.items()
        )

    def kept_headers(self, headers: Any) -> dict[str, str]:
        """Return those of *headers* that workflows see, by their names in lower case."""
        found = _headers_of(headers)
        values = {name.lower(): found.get(name) for name in self.keep_headers}
        return {name: value for name, value in values.items() if value is not None}

    def check_payload(self, payload: Any) -> None:
        """Raise ``INVALID_ARGUMENT`` if *payload* does not fit `payload_schema`."""
        what = f"payload of {self.name!r}"
        if problems := schema_problems(self.payload_schema, payload, what):
            raise invalid(what, problems)


_GUARDS = ("on", "required", "off")
_SECRETIVE = re.compile("authoriz|cookie|signature|token|secret|passw|api-?key", re.IGNORECASE)


def _scheme_problem(scheme: Any) -> tuple[str, str] | None:
    """Return why *scheme* can prove no request, and the remedy; None if it may."""
    if isinstance(scheme, type):
        name = scheme.__name__
        return f"its signature is the class {name}", f'write {name}("$secret:KEY")'
    if scheme is not None and not callable(getattr(scheme, "verify", None)):
        hint = 'give a scheme, such as HmacSignature("$secret:KEY", header="X-Signature")'
        return f"its signature can't be {type_name(scheme)}", hint
    return None


def _matches(text: str, wanted: str | Sequence[str]) -> bool:
    patterns = (wanted,) if isinstance(wanted, str) else wanted
    return any(fnmatchcase(text, pattern) for pattern in patterns)


def _headers_of(headers: Any) -> Mapping[str, str]:
    # Here, since a connector without triggers needs nothing of it.
    from automate_kernel.triggers.webhooks.request import WebhookHeaders

    return WebhookHeaders(headers)


@overload
def action(name: F, /) -> F: ...


@overload
def action(name: str | None = None, /, **options: Unpack[OperationOptions]) -> Callable[[F], F]: ...


def action(name: Any = None, /, **options: Unpack[OperationOptions]) -> Any:
    """
    Make a method of a connector one of its actions.

    ``@action``, ``@action("name")`` and ``@action(idempotent=True)`` all work. See
    `operation_from_function` for the method's parameters.
    """
    return decorating(name, options, "action")


class Connector(Plugin):
    """
    Base of all connectors.

    A subclass sets `key` and `display_name`, and marks methods with `action`, or overrides
    `actions` and `execute_action`. A connector that receives webhooks lists them in `triggers`.
    """

    context_class: ClassVar[type[ConnectorContext]] = ConnectorContext
    _noun: ClassVar[str] = "connector"
    _operation_noun: ClassVar[str] = "action"
    _lister: ClassVar[str] = "actions"
    _performer: ClassVar[str] = "execute_action"

    def __init__(
        self, config: dict[str, Any] | None = None, *, ctx: ConnectorContext | None = None
    ) -> None:
        self.config: Mapping[str, Any] = config if config is not None else {}
        self.ctx: ConnectorContext = ctx if ctx is not None else ConnectorContext(key=self.key)

    @classmethod
    def actions(cls) -> list[ActionSpec]:
        """Return the specs of the actions: by default, of the methods marked with `action`."""
        return marked_operations(cls, ActionSpec, "action")

    @classmethod
    def operation_specs(cls) -> list[ActionSpec]:
        """Return the same as `actions`."""
        return cls.actions()

    @classmethod
    def triggers(cls) -> list[TriggerSpec]:
        """Return the webhooks that the connector takes: by default none."""
        return []

    @classmethod
    def polls(cls) -> list[PollSpec]:
        """Return the polls: by default, of the methods marked with `poll`."""
        return polls_of(cls)

    @classmethod
    def find_trigger(cls, name: str) -> TriggerSpec:
        """Return the trigger called *name*, or raise ``NOT_FOUND`` with the names of all."""
        triggers = cls.triggers()
        for spec in triggers:
            if spec.name == name:
                return spec
        known = ", ".join(sorted(spec.name for spec in triggers)) or "none"
        raise AutomateError(
            ErrorCodes.NOT_FOUND,
            f"{cls._title()} has no trigger {name[:100]!r}",
            hint=f"it has: {known}",
        )

    def execute_action(self, action: str, input_data: dict[str, Any]) -> Any:
        """
        Carry out *action*. Mark methods, or override it (``def``, ``async def``).

        The kernel calls `call_action`, which checks the input first.
        """
        return self.find_operation(action).call(input_data, self)

    def call_action(self, action: str, input_data: Mapping[str, Any]) -> Any:
        """Return the action's output, or an awaitable of it; see `Plugin.call_operation`."""
        # The default would only look up and check again.
        raw = type(self).execute_action is not Connector.execute_action
        return self._call(action, input_data, self.execute_action, raw=raw)

    def call_operation(self, name: str, input_data: Mapping[str, Any]) -> Any:
        """Return the same as `call_action`."""
        return self.call_action(name, input_data)

    def verify_webhook(self, headers: dict[str, str], raw_body: bytes) -> bool:
        """
        Return True if the request proves that the service sent it. By default none does.

        Only ``True`` itself counts. Call `accepts_webhook`, which sees to that.
        """
        return False

    def signature_for(self, trigger: str) -> Any | None:
        """
        Return the signature scheme that proves requests for *trigger*, or None without a scheme.

        By default the scheme is that of the `TriggerSpec`. Override this method where the config
        says more, such as the keys of the secrets.
        """
        return self.find_trigger(trigger).signature

    def route_webhook(self, trigger: str, headers: Any, raw_body: bytes) -> str:
        """
        Return the trigger whose event an accepted request is: by default the trigger that it came
        to.

        Override it for a service that sends all of its events to one address. What it returns is
        one of `triggers`, with the same signature scheme: the request isn't proved again.
        """
        return trigger

    def accepts_webhook(self, trigger: str, headers: Any, raw_body: bytes) -> bool:
        """
        Return True if a request for *trigger* is proven.

        The trigger's signature scheme decides, or `verify_webhook` where it has none. Anything but
        ``True`` is a no: a stub that returns None, a coroutine, an exception. Raises
        `SecretUnavailableError` if the proof can't be checked now, and ``NOT_FOUND`` if there is no
        such trigger.
        """
        ctx = self._context()
        self.find_trigger(trigger)  # a trigger that isn't there is nothing to verify against
        try:
            signature = self.signature_for(trigger)
            if signature is not None:
                verdict = signature.verify(headers, raw_body, ctx.secrets)
            else:
                verdict = self.verify_webhook(headers, raw_body)
        except SecretUnavailableError:
            # Not the sender's fault: refused for good, a webhook that nobody sends again is lost.
            raise
        except BaseException as error:  # SystemExit too: a plugin must not end its process
            if is_interruption(error):
                raise
            # Without Python's own traceback, in which the error may quote the secret.
            text = "%s failed to verify a webhook, which is refused: %s"
            words = ctx.redact(f"{type(error).__name__}: {error}")
            trace = trace_of(error, ctx.redact)
            log_error(logger, logging.ERROR, text, self._title(), words, trace=trace)
            return False
        if inspect.iscoroutine(verdict):
            verdict.close()
            logger.error("%s: verify_webhook must not be async; refused", self._title())
            return False
        return verdict is True

    def webhook_refusal(self, trigger: str, headers: Any, raw_body: bytes) -> str:
        """Return what a request lacks that `accepts_webhook` has refused: for the log alone."""
        signature = self.signature_for(trigger)
        refusal = getattr(signature, "refusal", None)
        if signature is not None:
            secrets = self._context().secrets
            return str(refusal(headers, raw_body, secrets)) if callable(refusal) else "not proven"
        if type(self).verify_webhook is not Connector.verify_webhook:
            return "verify_webhook didn't return True"
        return f"nothing can prove it: give TriggerSpec({trigger!r}, …) a signature"

    def ignores_webhook(self, trigger: str, headers: Any, raw_body: bytes) -> Ignored | None:
        """
        Return the answer to an accepted request that starts nothing, or None for an event.

        By default these are the handshakes that the trigger's scheme knows, and requests that are
        not among the `TriggerSpec`'s events.
        """
        from automate_kernel.triggers.webhooks.request import Ignored

        spec = self.find_trigger(trigger)
        wanted = spec.wants(headers, raw_body)
        handshake = getattr(spec.signature, "handshake", None)
        found: Ignored | None = handshake(headers, raw_body) if callable(handshake) else None
        # A handshake that waits for no answer may be asked for by its name.
        if found is not None and (found.answer is not None or spec.events is None or not wanted):
            return found
        return None if wanted else Ignored("no event of this trigger")

    def parse_webhook(self, trigger: str, headers: Any, raw_body: bytes) -> Any:
        """
        Return the request's content as a JSON value. By default the body is JSON.

        Called only for a request that was accepted. A request for which it returns an
        `automate_kernel.triggers.webhooks.Ignored` starts nothing. Raises ``INVALID_ARGUMENT`` for
        a body that can't be read, or that does not fit the trigger's payload schema.
        """
        from automate_kernel.triggers.webhooks.request import BodyError, parse_json

        spec = self.find_trigger(trigger)
        try:
            payload = parse_json(raw_body)
        except BodyError as error:
            raise AutomateError(
                ErrorCodes.INVALID_ARGUMENT,
                f"{self._title()}: the body of a {trigger!r} webhook is refused: {error}",
                hint="override parse_webhook for a service that sends something else than JSON",
            ) from None
        spec.check_payload(payload)
        return payload

    def delivery_id(self, trigger: str, headers: Any, raw_body: bytes) -> str | None:
        """
        Return the text that is the same when the service sends a delivery again, or None.

        By default it is the header that the `TriggerSpec` names, if it was sent once and isn't
        blank. Override it where the body holds an id. Without one the trigger's scheme decides.
        """
        wanted = self.find_trigger(trigger).delivery_id_header
        value = _headers_of(headers).get(wanted) if wanted else None
        return value if value is not None and value.strip() else None
