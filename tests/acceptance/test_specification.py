"""
The samples of the specification, copied as they stand but for their import lines.

Only names that the samples themselves leave open (`myapp`, `process`, `MyProviderConfig`) are filled
in, above each one. Django's own outbox, signals, admin and API samples are in the Django tests.
"""

from __future__ import annotations

import json
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import pytest
import sqlalchemy as sa
from automate_kernel import (
    ActionSpec,
    AutomateError,
    BaseProvider,
    Connector,
    ErrorCodes,
    Kernel,
    OutboxItem,
    ProviderContext,
    ProviderRegistry,
    SecretNotFoundError,
    SecretsBackend,
    TriggerSpec,
    WebhookRejectedError,
)
from automate_kernel.outbox import ItemStatus
from automate_kernel.plugins import kinds
from automate_testing.clock import FakeClock
from pydantic import BaseModel
from specification_samples import has_sample

# -- provider ----------------------------------------------------------------------------------


class MyProviderConfig(BaseModel):
    """Left open by the sample."""

    model: str = "small"


# fmt: off
class MyProvider(BaseProvider):
    key = "my_provider"
    display_name = "My Custom Provider"

    def __init__(self, config: dict, *, ctx: ProviderContext):
        self.config = config
        self.ctx = ctx

    @classmethod
    def config_schema(cls) -> type[BaseModel]:
        return MyProviderConfig

    def normalize_error(self, exc: Exception) -> Exception:
        return AutomateError(ErrorCodes.INTERNAL, str(exc))
# fmt: on


def test_provider_is_created_with_its_config() -> None:
    """The registry finds it by its key, checks its config and completes it with the defaults."""
    registry = ProviderRegistry(discover=False)
    registry.register(MyProvider)
    assert registry.names == {"my_provider": "My Custom Provider"}
    provider = registry.create("my_provider")
    assert provider.config == {"model": "small"}
    assert provider.ctx.key == "my_provider"
    with pytest.raises(AutomateError, match="model"):
        registry.create("my_provider", {"model": ["no text"]})


def test_provider_has_its_own_words_for_errors() -> None:
    """Whatever a capability raises comes out as the provider's `normalize_error` says."""

    class Failing(MyProvider):
        key = "failing"

        @classmethod
        def capabilities(cls) -> list[Any]:
            from automate_kernel import CapabilitySpec

            return [CapabilitySpec("fail")]

        def execute_capability(self, name: str, input_data: dict) -> Any:
            raise ZeroDivisionError("no way")

    kernel = Kernel(plugins=[Failing], discover=False)
    with pytest.raises(AutomateError, match="no way") as caught:
        kernel.invoke("failing.fail")
    assert caught.value.code is ErrorCodes.INTERNAL


def test_provider_in_the_settings() -> None:
    """A path listed as in AUTOMATE_PROVIDERS is a provider under its own key."""
    AUTOMATE_PROVIDERS = [f"{_example_module()}.MyProvider"]
    assert ProviderRegistry(AUTOMATE_PROVIDERS, discover=False).get("my_provider") is MyProvider


def _example_module() -> str:
    import sys

    sys.modules["myapp_providers"] = SimpleNamespace(MyProvider=MyProvider)  # type: ignore[assignment]
    return "myapp_providers"


@pytest.mark.parametrize(
    ("group", "kind"),
    [
        ("django_automate.providers", "provider"),
        ("django_automate.secrets.backends", "secrets_backend"),
        ("django_automate.connectors", "connector"),
    ],
)
def test_entry_point_groups(group: str, kind: str) -> None:
    """The groups of the specification are looked at."""
    assert kinds.GROUPS[group].name == kind


# -- secrets backend ---------------------------------------------------------------------------


# fmt: off
class VaultBackend(SecretsBackend):
    """HashiCorp Vault integration."""

    def get_secret(self, key: str) -> str:
        """Return the raw secret value."""
        # Connect to Vault
        response = self.vault_client.read(f"secret/data/{key}")
        if not response:
            raise SecretNotFoundError(key)
        return response['data']['value']
# fmt: on


class FakeVault:
    """Knows one secret."""

    def read(self, path: str) -> Any:
        """What Vault's client gives."""
        return {"data": {"value": "tok-51d0aef77ac1"}} if path == "secret/data/CHAT" else None


@pytest.fixture
def vault() -> VaultBackend:
    """The sample's backend with a client, which the sample leaves open."""
    backend = VaultBackend()
    backend.vault_client = FakeVault()
    return backend


def test_secret_reaches_the_call_and_nothing_else(vault: VaultBackend) -> None:
    """An action gets the value; what it gives back, and what is stored, doesn't have it."""
    kernel, seen = Kernel(secrets=[vault], discover=False), []

    @kernel.action("chat.say")
    def say(text: str) -> dict:
        seen.append(text)
        return {"said": text}

    output = kernel.invoke("chat.say", {"text": "Bearer $secret:CHAT"})
    assert seen == ["Bearer tok-51d0aef77ac1"]
    assert "tok-51d0aef77ac1" not in str(output)


def test_missing_secret_leads_to_the_next_backend(vault: VaultBackend) -> None:
    """`SecretNotFoundError` from the sample lets the next backend answer, and names the key."""
    from automate_kernel.secrets import MemorySecretsBackend

    kernel = Kernel(secrets=[vault, MemorySecretsBackend({"OTHER": "other-value"})], discover=False)
    assert kernel.secrets.get("OTHER") == "other-value"
    with pytest.raises(SecretNotFoundError, match="NOWHERE"):
        kernel.secrets.get("NOWHERE")


# -- connector ---------------------------------------------------------------------------------


# fmt: off
class SlackConnector(Connector):
    key = "slack"
    display_name = "Slack"

    @classmethod
    def actions(cls) -> list[ActionSpec]:
        return [
            ActionSpec(
                name="post_message",
                input_schema={
                    "type": "object",
                    "properties": {
                        "channel": {"type": "string"},
                        "text": {"type": "string"},
                    },
                },
                idempotent=True
            )
        ]

    @classmethod
    def triggers(cls) -> list[TriggerSpec]:
        return [
            TriggerSpec(name="message_created", verification_method="hmac")
        ]

    def execute_action(self, action: str, input_data: dict) -> Any:
        if action == "post_message":
            return self._post_message(input_data)
        raise AutomateError(ErrorCodes.INVALID_ARGUMENT, f"Unknown action: {action}")

    def verify_webhook(self, headers: dict, raw_body: bytes) -> bool:
        # Signature verification
        pass
# fmt: on


class PostingConnector(SlackConnector):
    """With the method that the sample leaves open."""

    posted: list[dict]

    def _post_message(self, input_data: dict) -> dict:
        self.posted = [*getattr(self, "posted", []), input_data]
        return {"ts": "1"}


def test_connector_posts_a_message() -> None:
    """The action is called with input that fits its schema, and not with other input."""
    kernel = Kernel(plugins=[PostingConnector], discover=False)
    assert kernel.invoke("slack.post_message", {"channel": "C1", "text": "hi"}) == {"ts": "1"}
    assert kernel.connector("slack").posted == [{"channel": "C1", "text": "hi"}]
    with pytest.raises(AutomateError, match="channel") as caught:
        kernel.invoke("slack.post_message", {"channel": 1})
    assert caught.value.code is ErrorCodes.INVALID_ARGUMENT


def test_connector_refuses_an_unknown_action() -> None:
    """Both ways of asking end with INVALID_ARGUMENT."""
    connector = SlackConnector()
    for ask in (connector.execute_action, connector.call_action):
        with pytest.raises(AutomateError) as caught:
            ask("archive", {})
        assert caught.value.code is ErrorCodes.INVALID_ARGUMENT


def test_a_stub_accepts_no_webhook() -> None:
    """The sample's `verify_webhook` returns None, which proves nothing."""
    kernel = Kernel(plugins=[SlackConnector], discover=False)
    with pytest.raises(WebhookRejectedError):
        kernel.receive_webhook("slack", "message_created", {}, b"{}")


# -- outbox ------------------------------------------------------------------------------------


class TransientError(Exception):
    """Passes by itself."""


class PermanentError(Exception):
    """Stays."""


@pytest.fixture
def specified(sqlite_engine: sa.Engine) -> SimpleNamespace:
    """The stores of the sample, which know their database as they do in Django."""
    import automate_sqlalchemy

    def bound(cls: type) -> Any:
        return lambda **options: cls(sqlite_engine, **options)

    return SimpleNamespace(
        SkipLockedClaimOutboxStore=bound(automate_sqlalchemy.SkipLockedClaimOutboxStore),
        OptimisticClaimOutboxStore=bound(automate_sqlalchemy.OptimisticClaimOutboxStore),
        OutboxReaper=bound(automate_sqlalchemy.OutboxReaper),
        enqueue=automate_sqlalchemy.SkipLockedClaimOutboxStore(sqlite_engine).enqueue,
        get=automate_sqlalchemy.SkipLockedClaimOutboxStore(sqlite_engine).get,
    )


def test_outbox_sample(specified: SimpleNamespace) -> None:
    """Each item ends as its processing went, and nothing is stuck."""
    ids = {name: specified.enqueue("work", {"how": name}) for name in ("well", "later", "never")}
    errors = {"later": TransientError, "never": PermanentError}

    def process(item: OutboxItem) -> None:
        if error := errors.get(item.payload["how"]):
            raise error

    next_attempt = timedelta(minutes=1)
    SkipLockedClaimOutboxStore = specified.SkipLockedClaimOutboxStore
    OutboxReaper = specified.OutboxReaper

    # fmt: off
    # Claim items for processing
    store = SkipLockedClaimOutboxStore(lease_seconds=300)
    items = store.claim_batch("worker-1", limit=10)

    for item in items:
        try:
            process(item)
            store.mark_success(item.id, "worker-1")
        except TransientError:
            store.mark_retry(item.id, "worker-1", next_attempt, "TRANSIENT")
        except PermanentError:
            store.mark_failed(item.id, "worker-1", "PERMANENT")

    # Recover stuck items (run periodically)
    reaper = OutboxReaper(stale_threshold_seconds=600)
    reaped_count = reaper.reap_stale_items()
    # fmt: on

    assert len(items) == 3
    assert reaped_count == 0
    assert {name: specified.get(i).status for name, i in ids.items()} == {
        "well": ItemStatus.COMPLETED,
        "later": ItemStatus.RETRY,
        "never": ItemStatus.FAILED,
    }
    assert specified.get(ids["later"]).last_error_code == "TRANSIENT"
    assert specified.get(ids["never"]).last_error_code == "PERMANENT"


def test_optimistic_store_is_used_the_same_way(specified: SimpleNamespace) -> None:
    """The SQLite-compatible store claims and finishes with the same calls."""
    item_id = specified.enqueue("work")
    store = specified.OptimisticClaimOutboxStore(lease_seconds=300)
    (item,) = store.claim_batch("worker-1", limit=10)
    store.mark_success(item.id, "worker-1")
    assert specified.get(item_id).status is ItemStatus.COMPLETED


def test_reaper_recovers_what_is_stuck() -> None:
    """An item whose worker died can be claimed by another one."""
    from automate_kernel import MemoryStorage, OutboxReaper
    from automate_kernel.outbox import SkipLockedClaimOutboxStore

    clock = FakeClock()
    store = SkipLockedClaimOutboxStore(MemoryStorage(clock=clock), lease_seconds=300)
    store.enqueue("work")
    store.claim_batch("worker-1", limit=10)
    reaper = OutboxReaper(store, stale_threshold_seconds=600)
    clock.advance(301)
    assert reaper.reap_stale_items() == 0, "not stale for long enough"
    clock.advance(300)
    assert reaper.reap_stale_items() == 1
    clock.advance(3600)
    assert len(store.claim_batch("worker-2", limit=10)) == 1


# -- signals -----------------------------------------------------------------------------------


def test_signals_sample() -> None:
    """The receivers of the sample hear of a workflow that completes and of a step that fails."""
    from automate_kernel.signals import (
        event_received,
        step_completed,
        step_failed,
        step_started,
        workflow_completed,
        workflow_failed,
        workflow_started,
    )

    notifications, logged, heard = [], [], []

    def send_notification(owner: Any, text: str) -> None:
        notifications.append((owner, text))

    def log_to_sentry(error: Exception, extra: dict) -> None:
        logged.append((str(error), extra))

    def receiver(signal: Any) -> Any:
        # Without Django a signal's own `connect` is the decorator.
        return lambda function: signal.connect(function, weak=False)

    # fmt: off
    # Connect handler
    @receiver(workflow_completed)
    def on_workflow_complete(sender, execution, **kwargs):
        send_notification(execution.owner, f"Workflow {execution.name} completed")

    @receiver(step_failed)
    def on_step_failure(sender, step, error, **kwargs):
        log_to_sentry(error, extra={'step_id': step.id})
    # fmt: on

    def hear(name: str) -> Any:
        return lambda sender, **kwargs: heard.append((name, sorted(kwargs)))

    rest = (event_received, workflow_started, workflow_failed, step_started, step_completed)
    others = [(signal, hear(signal.name)) for signal in rest]
    for signal, function in others:
        signal.connect(function, weak=False)
    try:
        kernel = _failing_and_completing()
    finally:
        workflow_completed.disconnect(on_workflow_complete)
        step_failed.disconnect(on_step_failure)
        for signal, function in others:
            signal.disconnect(function)
    assert notifications == [("acme", "Workflow greet completed")]
    assert logged == [("it is off", {"step_id": "two"})]
    assert ("event_received", ["event"]) in heard
    assert ("workflow_started", ["execution"]) in heard
    assert ("step_started", ["execution", "step"]) in heard
    assert ("step_completed", ["execution", "step"]) in heard
    assert ("workflow_failed", ["error", "execution"]) not in heard
    assert kernel.outbox.stats().total("FAILED") == 0


def _failing_and_completing() -> Kernel:
    kernel = Kernel(discover=False)

    @kernel.action("say")
    def say(text: str) -> str:
        if text == "off":
            raise AutomateError(ErrorCodes.FAILED_PRECONDITION, "it is off")
        return text

    kernel.add_workflow(
        {
            "name": "greet",
            "trigger": {"type": "event", "event": "user.joined"},
            "steps": [
                {"id": "one", "action": "say", "input": {"text": "on"}},
                {"id": "two", "action": "say", "input": {"text": "off"}, "on_failure": "continue"},
            ],
        }
    )
    kernel.emit("user.joined", tenant_id="acme")
    kernel.run_until_idle()
    return kernel


# -- templates ---------------------------------------------------------------------------------


def test_templates_sample() -> None:
    """The filter of the sample and its step input give what a user expects."""
    from automate_kernel.templates import FilterRegistry, TemplateContext, TemplateEngine

    filters = FilterRegistry()
    register_filter = filters.register

    # fmt: off
    # In your app's apps.py
    @register_filter('format_currency')
    def format_currency(value, currency='USD'):
        return f"{currency} {value:,.2f}"

    step_input = """
    {
        "channel": "{{ event.payload.channel_id }}",
        "message": "Order total: {{ steps.calculate.output.total | format_currency('EUR') }}"
    }
    """
    # fmt: on

    template = TemplateEngine(filters).compile(json.loads(step_input))
    context = TemplateContext(
        event={"payload": {"channel_id": "C1"}, "type": "webhook", "source": "stripe"},
        execution={"id": "uuid", "name": "My Workflow"},
        steps={"calculate": {"output": {"total": 1234.5}}},
    )
    assert template.render(context) == {"channel": "C1", "message": "Order total: EUR 1,234.50"}


def test_register_filter_is_for_all_kernels() -> None:
    """The function that the sample imports adds to what every kernel has."""
    from automate_kernel import register_filter
    from automate_kernel.templates import default_filters

    name = "specification_format_currency"
    register_filter(name)(lambda value, currency="USD": f"{currency} {value:,.2f}")
    try:
        kernel = Kernel(discover=False)
        assert kernel.invoke is not None
        assert name in kernel.filters
    finally:
        del default_filters._own[name]


def test_template_context_has_the_specified_names(monkeypatch: pytest.MonkeyPatch) -> None:
    """A step sees event, execution, earlier steps, a secret's reference and an allowed variable."""
    monkeypatch.setenv("SHOP_URL", "https://shop.example.com")
    kernel = Kernel(secrets={"KEY": "tok-51d0aef77ac1"}, env_allow=["SHOP_URL"], discover=False)
    seen: list[Any] = []
    kernel.action("see")(lambda **given: seen.append(given))
    kernel.add_workflow(
        {
            "name": "My Workflow",
            "trigger": {"type": "event", "event": "order.created"},
            "steps": [
                {"id": "step_1", "action": "see"},
                {
                    "id": "step_2",
                    "action": "see",
                    "input": {
                        "payload": "{{ event.payload }}",
                        "type": "{{ event.type }}",
                        "source": "{{ event.source }}",
                        "id": "{{ execution.id }}",
                        "name": "{{ execution.name }}",
                        "output": "{{ steps.step_1.output }}",
                        "secret": "$secret:KEY",
                        "same": "{{ secrets.KEY }}",
                        "env": "$env:SHOP_URL",
                    },
                },
            ],
            "env": ["SHOP_URL"],
        }
    )
    kernel.emit("order.created", {"total": 1}, source="shop")
    kernel.run_until_idle()
    (execution,) = kernel.executions.find()
    assert str(execution.status) == "COMPLETED", execution.error
    assert seen[1] == {
        "payload": {"total": 1},
        "type": "event",
        "source": "shop",
        "id": execution.id,
        "name": "My Workflow",
        "output": None,
        "secret": "tok-51d0aef77ac1",
        "same": "tok-51d0aef77ac1",
        "env": "https://shop.example.com",
    }


def test_samples_are_unchanged() -> None:
    """The classes above read word for word as the specification prints them."""
    assert has_sample(MyProvider, "provider")
    assert has_sample(VaultBackend, "secrets")
    assert has_sample(SlackConnector, "connector")
