"""One tenant's keys never meet another's."""

import inspect

import pytest
from automate_kernel import Call, Kernel
from automate_kernel.base.errors import AutomateError
from automate_kernel.outbox import SkipLockedClaimOutboxStore
from automate_kernel.storage import MemoryStorage
from defined import define


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
    define(
        knowing, {"id": "a", "action": "noop"}, trigger={"type": "event", "event": "order.created"}
    )
    knowing.run_until_idle()
    assert [execution.status.value for execution in knowing.executions.find()] == ["COMPLETED"]


def test_an_outbox_in_another_storage_is_refused():
    """Events would be accepted in one database and looked for in the other."""
    store = SkipLockedClaimOutboxStore(MemoryStorage())
    assert Kernel(outbox=store, discover=False).storage is store.storage
    with pytest.raises(AutomateError, match="another storage"):
        Kernel(MemoryStorage(), outbox=store, discover=False)


# A worker, or a caller that has looked itself, asks for these.
INTERNAL = {"live", "cancel_children", "executing_here", "fire"}


@pytest.mark.parametrize("part", ["kernel", "executions", "approvals", "schedules"])
def test_what_takes_an_id_takes_a_tenant(part):
    """An application passes the id that a user gives: another tenant's is to be not there."""
    kernel = Kernel(discover=False)
    owner = kernel if part == "kernel" else getattr(kernel, part)
    for name, method in inspect.getmembers(owner, inspect.ismethod):
        named = inspect.signature(method).parameters
        about = {"execution_id"} if part != "schedules" else {"workflow"}
        if name.startswith("_") or name in INTERNAL or not about & {*named}:
            continue
        assert "tenant_id" in named, f"{part}.{name} takes no tenant_id"
        assert named["tenant_id"].kind is inspect.Parameter.KEYWORD_ONLY or part == "schedules"


def test_another_tenants_execution_is_not_there():
    """Whatever is asked of it; its own tenant, and who asks without one, find it."""
    kernel = Kernel(discover=False)
    kernel.action("shop.fail")(lambda: 1 / 0)
    steps = [
        {"id": "fail", "action": "shop.fail", "on_failure": "continue"},
        {"id": "wait", "wait_for": {"signal": "go"}},
    ]
    cleaning = [{"id": "last", "wait_for": {"signal": "never"}}]
    define(kernel, *steps, **{"finally": cleaning})
    execution_id = kernel.start("w", tenant_id="acme")
    kernel.run_until_idle()
    executions = kernel.executions
    readers = (executions.waits, executions.attempts, executions.failed_attempts)
    for read in readers:
        assert read(execution_id) == read(execution_id, tenant_id="acme") != []
        assert read(execution_id, tenant_id="globex") == []
        assert read("no id", tenant_id="acme") == []
    assert not executions.is_cancelling(execution_id)
    assert executions.cancel(execution_id)
    assert executions.is_cancelling(execution_id)
    assert executions.is_cancelling(execution_id, tenant_id="acme")
    assert not executions.is_cancelling(execution_id, tenant_id="globex")
    assert executions.cancel(execution_id, force=True)
    assert not executions.is_cancelling(execution_id)
    with pytest.raises(AutomateError, match="there is no execution") as caught:
        kernel.start_again(execution_id, tenant_id="globex")
    assert caught.value.code == "NOT_FOUND"
    assert len(executions.find()) == 1
    again = executions.get(kernel.start_again(execution_id, tenant_id="acme"))
    assert again.tenant_id == "acme"
