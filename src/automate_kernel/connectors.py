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
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeVar, overload

from automate_kernel.errors import (
    AutomateError,
    ConfigError,
    ErrorCodes,
    SecretUnavailableError,
)
from automate_kernel.operations.context import ConnectorContext, NoSecrets, PluginContext
from automate_kernel.operations.plugin import Plugin, create
from automate_kernel.operations.schemas import (
    Schema,
    check_model,
    compile_schema,
    invalid_input,
    is_model,
)
from automate_kernel.operations.spec import (
    OperationSpec,
    find_operation,
    index_operations,
    mark_operation,
    marked_operations,
)
from automate_kernel.plugins.kinds import CONNECTOR
from automate_kernel.plugins.registry import Policy, Registry
from automate_kernel.secrets.logs import get_logger
from automate_kernel.secrets.tracebacks import log_error, trace_of

if TYPE_CHECKING:
    from automate_kernel.webhooks.request import Ignored

__all__ = [
    "ActionSpec",
    "Connector",
    "ConnectorContext",
    "ConnectorRegistry",
    "TriggerSpec",
    "action",
]

logger: logging.Logger = get_logger(__name__)
F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True)
class ActionSpec(OperationSpec):
    """What one action of a connector takes and gives."""


@dataclass(frozen=True, slots=True)
class TriggerSpec:
    """
    One kind of webhook that a service sends.

    *signature* is a scheme of `automate_kernel.webhooks`; without one the connector's own
    `Connector.verify_webhook` decides. *event_name* is what workflows call the event; the default
    is ``connector.trigger``.

    *delivery_id_header* names the header that is the same when the service sends a delivery again;
    without it, or where a request has it not exactly once, the scheme knows the delivery's id.
    *replay_guard* says what becomes of ids: ``"on"``, a delivery that comes again starts nothing;
    ``"required"``, one without an id of the service's own is refused as well; ``"off"``, each
    request is an event.

    *events* says which requests are events of this trigger; all others are accepted and start
    nothing. It is a name or several as the service calls them (``"invoice.paid"``,
    ``["push", "pull_request.*"]``), for schemes that know the name, or values of headers:
    ``{"X-GitHub-Event": "push"}``. *keep_headers* are those that workflows see, as
    ``event.headers["x-github-event"]``; none that proves who sent it can be among them.
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

    def __post_init__(self) -> None:
        if self.replay_guard not in _GUARDS:
            raise ConfigError(
                f"trigger {self.name!r}: replay_guard can't be {self.replay_guard!r}",
                hint=f"use {', '.join(_GUARDS)}",
            )
        if isinstance(self.keep_headers, str):
            raise ConfigError(
                f"trigger {self.name!r}: keep_headers is text",
                hint=f"write keep_headers=[{self.keep_headers!r}]",
            )
        for name in self.keep_headers:
            if _SECRETIVE.search(name):
                raise ConfigError(
                    f"trigger {self.name!r}: the header {name!r} can't be kept",
                    hint="it may prove who sent a request, and what is kept is stored and shown",
                )
        if not (self.events is None or isinstance(self.events, Mapping) or self._names_events()):
            raise ConfigError(
                f"trigger {self.name!r}: its scheme doesn't tell what an event is called",
                hint='name a header: events={"X-Event": "push"}',
            )

    def _names_events(self) -> bool:
        return callable(getattr(self.signature, "event_name", None))

    def wants(self, headers: Any, raw_body: bytes) -> bool:
        """Whether a verified request is one of `events`."""
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
        """Those of *headers* that workflows see, by their names in lower case."""
        if not self.keep_headers:
            return {}
        found = _headers_of(headers)
        values = {name.lower(): found.get(name) for name in self.keep_headers}
        return {name: value for name, value in values.items() if value is not None}

    def check_payload(self, payload: Any) -> None:
        """Raise ``INVALID_ARGUMENT`` if *payload* is not what `payload_schema` says."""
        what = f"payload of {self.name!r}"
        if is_model(self.payload_schema):
            _, problems = check_model(self.payload_schema, payload)  # type: ignore[arg-type]
        elif isinstance(self.payload_schema, Mapping):
            problems = compile_schema(self.payload_schema, what)(payload)
        else:
            return
        if problems:
            raise invalid_input(what, problems)


_GUARDS = ("on", "required", "off")
_SECRETIVE = re.compile("authoriz|cookie|signature|token|secret|passw|api-?key", re.IGNORECASE)


def _matches(text: str, wanted: str | Sequence[str]) -> bool:
    patterns = (wanted,) if isinstance(wanted, str) else wanted
    return any(fnmatchcase(text, pattern) for pattern in patterns)


def _headers_of(headers: Any) -> Mapping[str, str]:
    # Here, since a connector without triggers needs nothing of it.
    from automate_kernel.webhooks.request import WebhookHeaders

    return WebhookHeaders(headers)


@overload
def action(name: F, /) -> F: ...


@overload
def action(
    name: str | None = None,
    /,
    *,
    idempotent: bool = False,
    title: str = "",
    description: str | None = None,
    input_schema: Schema = None,
    output_schema: Schema = None,
) -> Callable[[F], F]: ...


def action(name: Any = None, /, **options: Any) -> Any:
    """
    Make a method of a connector one of its actions.

    ``@action``, ``@action("name")`` and ``@action(idempotent=True)`` all work. How the method
    takes its input says `operation_from_function`.
    """
    return mark_operation(name, options, "action")


class Connector(Plugin):
    """
    Base of all connectors.

    A subclass sets `key` and `display_name`, and marks methods with `action`, or overrides
    `actions` and `execute_action`. One that receives webhooks lists them in `triggers`.
    """

    _noun: ClassVar[str] = "connector"

    def __init__(
        self, config: dict[str, Any] | None = None, *, ctx: ConnectorContext | None = None
    ) -> None:
        self.config: Mapping[str, Any] = config if config is not None else {}
        self.ctx: ConnectorContext = ctx if ctx is not None else ConnectorContext(key=self.key)

    @classmethod
    def actions(cls) -> list[ActionSpec]:
        """What the connector can do: by default, its methods marked with `action`."""
        return marked_operations(cls, ActionSpec)

    @classmethod
    def triggers(cls) -> list[TriggerSpec]:
        """The webhooks that the connector takes: by default none."""
        return []

    @classmethod
    def find_action(cls, name: str) -> ActionSpec:
        """The action called *name*, or ``INVALID_ARGUMENT`` that says what there is."""
        # Kept per class, not inherited: a subclass has actions of its own.
        if "_action_index" not in cls.__dict__:
            cls._action_index = index_operations(cls.actions(), cls._title())
        return find_operation(cls._action_index, name, noun="action", owner=cls._title())

    @classmethod
    def find_trigger(cls, name: str) -> TriggerSpec:
        """The trigger called *name*, or ``NOT_FOUND`` that says what there is."""
        triggers = cls.triggers()
        for spec in triggers:
            if spec.name == name:
                return spec
        known = ", ".join(sorted(spec.name for spec in triggers)) or "none"
        raise AutomateError(
            ErrorCodes.NOT_FOUND, f"{cls._title()} has no trigger {name!r}", hint=f"it has: {known}"
        )

    _action_index: ClassVar[Mapping[str, ActionSpec]]

    def execute_action(self, action: str, input_data: dict[str, Any]) -> Any:
        """
        Do what *action* says. Mark methods, or override it (``def``, ``async def``).

        The kernel calls `call_action`, which checks the input first.
        """
        return self.find_action(action).call(input_data, self)

    def call_action(self, action: str, input_data: Mapping[str, Any]) -> Any:
        """
        The action's output as a JSON value, or an awaitable of it if the action is async.

        Raises nothing but `AutomateError`: for input that is not valid before the call, and as
        `normalize_error` words it afterwards.
        """
        spec = self.find_action(action)
        value = spec.validate(input_data)
        # The default would only look up and check again.
        plain = type(self).execute_action is Connector.execute_action
        given = value if plain else dict(input_data)
        return self._perform(spec, lambda: self.execute_action(action, given))

    def verify_webhook(self, headers: dict[str, str], raw_body: bytes) -> bool:
        """
        Whether the request proves that the service sent it. By default nothing does.

        Only ``True`` itself counts. Callers ask `accepts_webhook`, which sees to that.
        """
        return False

    def accepts_webhook(self, trigger: str, headers: Any, raw_body: bytes) -> bool:
        """
        Whether a request for *trigger* may be believed.

        The trigger's signature scheme decides, or `verify_webhook` where it has none. Anything but
        ``True`` is a no: a stub that returns None, a coroutine, an exception. Raises only
        `SecretUnavailableError`: whether to believe it can't be told now.
        """
        signature = self.find_trigger(trigger).signature
        try:
            if signature is not None:
                ctx = getattr(self, "ctx", None)
                secrets = ctx.secrets if isinstance(ctx, PluginContext) else NoSecrets()
                verdict = signature.verify(headers, raw_body, secrets)
            else:
                verdict = self.verify_webhook(headers, raw_body)
        except SecretUnavailableError:
            # Not the sender's fault: refused for good, a webhook that nobody sends again is lost.
            raise
        except Exception as error:
            # Without Python's own traceback, in which the error may quote the secret.
            ctx = getattr(self, "ctx", None)
            redact = ctx.redact if isinstance(ctx, PluginContext) else str
            log_error(
                logger,
                logging.ERROR,
                "%s failed to verify a webhook, which is refused: %s",
                self._title(),
                redact(f"{type(error).__name__}: {error}"),
                trace=trace_of(error, redact),
            )
            return False
        if inspect.iscoroutine(verdict):
            verdict.close()
            logger.error("%s: verify_webhook must not be async; refused", self._title())
            return False
        return verdict is True

    def ignores_webhook(self, trigger: str, headers: Any, raw_body: bytes) -> Ignored | None:
        """
        The answer to an accepted request that starts nothing, or None for one that is an event.

        By default these are the handshakes that the trigger's scheme knows, and what is not among
        the `TriggerSpec`'s events.
        """
        from automate_kernel.webhooks.request import Ignored

        spec = self.find_trigger(trigger)
        wanted = spec.wants(headers, raw_body)
        handshake = getattr(spec.signature, "handshake", None)
        found: Ignored | None = handshake(headers, raw_body) if callable(handshake) else None
        # One that waits for no answer may be asked for by its name.
        if found is not None and (found.answer is not None or spec.events is None or not wanted):
            return found
        return None if wanted else Ignored("no event of this trigger")

    def parse_webhook(self, trigger: str, headers: Any, raw_body: bytes) -> Any:
        """
        What the request says, as a JSON value. By default the body is JSON.

        Called only for a request that was accepted. An `automate_kernel.webhooks.Ignored` in place
        of a value: it is accepted, and starts nothing. Raises ``INVALID_ARGUMENT`` for a body that
        can't be read, or that is not what the trigger's payload schema says.
        """
        from automate_kernel.webhooks.request import BodyError, parse_json

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
        What is the same when the service sends a delivery again, or None if nothing is.

        By default the header that the `TriggerSpec` names, if it was sent once and isn't blank.
        Override it where the body says. Where this is None, the trigger's scheme is asked.
        """
        wanted = self.find_trigger(trigger).delivery_id_header
        value = _headers_of(headers).get(wanted) if wanted else None
        return value if value is not None and value.strip() else None


class ConnectorRegistry(Registry[type[Connector]]):
    """
    The connectors that the host has: registered, listed in its settings, installed, or built in.

    Nothing is imported before a connector is asked for.
    """

    def __init__(
        self,
        settings: Iterable[str] | Mapping[str, str] = (),
        *,
        discover: bool = True,
        policy: Policy | None = None,
    ) -> None:
        super().__init__(CONNECTOR, settings, discover=discover, policy=policy)

    def create(
        self, key: str, config: Mapping[str, Any] | None = None, ctx: ConnectorContext | None = None
    ) -> Connector:
        """An instance of the connector *key*, with its config checked."""
        return create(self.get(key), config, ctx or ConnectorContext(key=key))

    @property
    def names(self) -> dict[str, str]:
        """The names for people, by key. Loads every connector; broken ones are left out."""
        return {key: cls.display_name or key for key, cls in self.load_all().items()}

    def specs(self) -> dict[str, list[ActionSpec]]:
        """All actions, by connector key. Loads every connector; broken ones are left out."""
        return {key: cls.actions() for key, cls in self.load_all().items()}
