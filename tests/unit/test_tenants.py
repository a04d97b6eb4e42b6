"""One tenant's keys never meet another's."""

import pytest
from automate_kernel import Call, Kernel
from automate_kernel.errors import AutomateError
from automate_kernel.outbox import SkipLockedClaimOutboxStore
from automate_kernel.storage import MemoryStorage


def test_an_idempotency_key_belongs_to_its_tenant():
    """Two tenants that use one key both get their event; within a tenant it counts once."""
    kernel = Kernel(discover=False)
    first = kernel.emit("order", tenant_id="a", idempotency_key="order-1")
    other = kernel.emit("order", tenant_id="b", idempotency_key="order-1")
    assert first != other
    assert kernel.emit("order", tenant_id="a", idempotency_key="order-1") == first
    assert kernel.outbox.get(other).idempotency_key == "order-1"


def test_the_key_of_a_call_belongs_to_its_tenant():
    """A service knows the call by it: it would take one of another tenant for this one."""
    kernel = Kernel(discover=False)

    @kernel.action("key")
    def key(call: Call) -> str | None:
        return call.idempotency_key

    def seen(key, tenant_id):
        return kernel.invoke("key", idempotency_key=key, tenant_id=tenant_id)

    given = [("order-1", "a"), ("order-1", "b"), ("order-1", None), ('b", "order-1', "a")]
    keys = [seen(*each) for each in given]
    assert len(set(keys)) == len(given)
    assert seen("order-1", "a") == keys[0]
    assert seen(None, "a") is None


def test_keys_that_look_alike_once_joined_are_told_apart():
    """A tenant can't reach another's key by spelling its name into its own."""
    kernel = Kernel(discover=False)
    ids = {
        kernel.emit("order", tenant_id="a", idempotency_key="b:c"),
        kernel.emit("order", tenant_id="a:b", idempotency_key="c"),
        kernel.emit("order", idempotency_key="a:b:c"),
    }
    assert len(ids) == 3


def test_an_ordering_key_belongs_to_its_tenant():
    """A tenant's long work holds up nobody else's, though they order by the same key."""
    store = SkipLockedClaimOutboxStore(MemoryStorage())
    for tenant_id in ("a", "b"):
        store.enqueue("work", ordering_key="invoices", tenant_id=tenant_id)
        store.enqueue("work", ordering_key="invoices", tenant_id=tenant_id)
    claimed = store.claim_batch("w", 10)
    assert sorted(item.tenant_id for item in claimed) == ["a", "b"]
    assert {item.ordering_key for item in claimed} == {"invoices"}


def test_an_event_waits_for_a_process_that_knows_workflows():
    """A worker without any must not be done with an event that another would act on."""
    storage = MemoryStorage()
    Kernel(storage, discover=False).emit("order.created")
    assert Kernel(storage, discover=False).run_until_idle().total == 0
    knowing = Kernel(storage, discover=False)
    knowing.action("noop")(lambda: None)
    knowing.add_workflow(
        {
            "name": "w",
            "trigger": {"type": "event", "event": "order.created"},
            "steps": [{"id": "a", "action": "noop"}],
        }
    )
    knowing.run_until_idle()
    assert [execution.status.value for execution in knowing.executions.find()] == ["COMPLETED"]


def test_a_cancelled_wake_up_cancels_its_execution():
    """An operator who cancels the item leaves no execution that runs for ever."""
    kernel = Kernel(discover=False)
    kernel.action("noop")(lambda: None)
    kernel.add_workflow(
        {"name": "w", "trigger": {"type": "manual"}, "steps": [{"id": "a", "action": "noop"}]}
    )
    execution = kernel.executions.get(kernel.start("w"))
    assert kernel.outbox.cancel([execution.item_id]) == 1
    assert kernel.executions.get(execution.id).status.value == "CANCELLED"


def test_an_outbox_in_another_storage_is_refused():
    """Events would be accepted in one database and looked for in the other."""
    store = SkipLockedClaimOutboxStore(MemoryStorage())
    assert Kernel(outbox=store, discover=False).storage is store.storage
    with pytest.raises(AutomateError, match="another storage"):
        Kernel(MemoryStorage(), outbox=store, discover=False)
