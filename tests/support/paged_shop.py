"""A shop whose operators have pages: an order that waits for an approval, or fails."""

from __future__ import annotations

from typing import Any

from starlette.applications import Starlette
from starlette.routing import Mount
from starlette.testclient import TestClient

from automate_kernel import Kernel, OutboxItem
from automate_kernel.storage import MemoryStorage, Storage
from automate_kernel.workflows import StoredWorkflows
from automate_kernel.workflows.execution import Execution
from automate_pages import User, pages

SECRET = "hunter2-of-the-shop"


class Shop:
    """A kernel with an order that waits for an approval, and another that failed."""

    def __init__(self, storage: Storage | None = None, *, kernel: Kernel | None = None) -> None:
        storage = storage or MemoryStorage()
        source = StoredWorkflows(storage)
        self.kernel = kernel or Kernel(storage, secrets={"TOKEN": SECRET}, workflow_source=source)
        self.limit = 100
        self.kernel.action("charge")(self.charge)
        self.kernel.handler("letter")(self.send_letter)
        self.kernel.add_workflow(
            {
                "name": "order",
                "trigger": {"type": "event", "event": "order.created"},
                "steps": [
                    {"id": "charge", "action": "charge", "input": "{{ event.payload }}"},
                    {
                        "id": "ok",
                        "needs": ["charge"],
                        "approval": {
                            "title": "Ship {{ event.payload.name }}?",
                            "form": [{"name": "boxes", "type": "integer", "required": True}],
                        },
                    },
                ],
            }
        )

    def charge(
        self, amount: int, name: str = "", token: str = "", lines: Any = None
    ) -> dict[str, Any]:
        """Charge the customer's card."""
        if amount > self.limit:
            raise ValueError(f"{name} can't pay {amount} with {token}")
        return {"charged": amount, "name": name}

    def send_letter(self, item: OutboxItem) -> None:
        raise LookupError(f"there is no street in {item.payload['to']}")

    def order(self, amount: int = 5, *, tenant: str | None = None, **payload: Any) -> Execution:
        begun = self.kernel.start(
            "order",
            {"amount": amount, "name": "tea", **payload},
            tenant_id=tenant,
            labels={"by": "test"},
        )
        self.kernel.run_until_idle()
        found = self.kernel.executions.get(begun)
        assert found is not None
        return found


def client(shop: Shop, user: User | None, **options: Any) -> TestClient:
    """Return a browser of *user*, in an application that has the pages below /ops."""
    app = Starlette(routes=[Mount("/ops", pages(shop.kernel, auth=lambda _: user, **options))])
    return TestClient(app, base_url="http://shop.example")


def admin(**options: Any) -> User:
    return User("ada", ["admin"], options.get("tenant"))


def send(browser: TestClient, path: str, **form: str) -> Any:
    """Send a form as the pages' own do, with the token that a page gave before."""
    if "automate_csrf" not in browser.cookies:
        browser.get("/ops/")
    return browser.post(path, data={"csrf": browser.cookies["automate_csrf"], **form})
