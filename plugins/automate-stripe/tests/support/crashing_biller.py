"""
A worker that kills itself around each request to Stripe, while a workflow sells and bills.

    python crashing_biller.py URL FOLDER

The places to die at are each request that changes something: before it, and after its answer,
which then is in no commit. For each it forks a child that dies there, and another that finishes
the work. A child that comes to its end is the last. The number of places goes to
`FOLDER/result.json`.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from automate_http import ServiceClient
from automate_kernel import Kernel
from automate_sqlalchemy import SqlAlchemyStorage
from automate_stripe import StripeConnector
from stripe_support import SECRETS

sys.path.append(str(Path(__file__).parents[4] / "tests" / "support"))
from leases import pass_leases  # noqa: E402
from mortal_process import die_around, die_everywhere, ends  # noqa: E402
from waiting import until  # noqa: E402

CALLS: list[tuple[str, dict[str, Any]]] = [
    ("create_product", {"name": "Tea"}),
    ("create_price", {"product": "prod_1", "unit_amount": 1_050, "currency": "eur"}),
    ("create_subscription", {"customer": "cus_1", "items": [{"price": "price_1"}]}),
    ("update_subscription", {"subscription": "sub_1", "items": [{"price": "price_2"}]}),
    ("create_invoice", {"customer": "cus_1"}),
    (
        "add_invoice_item",
        {"invoice": "in_1", "customer": "cus_1", "amount": 1_050, "currency": "eur"},
    ),
    ("finalize_invoice", {"invoice": "in_1"}),
    ("send_invoice", {"invoice": "in_1"}),
    ("pay_invoice", {"invoice": "in_1"}),
    ("void_invoice", {"invoice": "in_1"}),
]
WORKFLOW = {
    "name": "bill",
    "trigger": {"type": "manual"},
    "steps": [
        {
            "id": name, "action": f"stripe.{name}", "input": given,
            "retry": {"attempts": 5, "delay": "50ms"},
        }
        for name, given in CALLS
    ],
}  # fmt: skip


def make(folder: Path, url: str) -> Kernel:
    storage = SqlAlchemyStorage(sa.create_engine(f"sqlite:///{folder / 'run.sqlite3'}"))
    storage.create_tables()
    config = {"base_url": url, "allow_private_networks": ["127.0.0.1"]}
    kernel = Kernel(
        storage, plugins=[StripeConnector], discover=False, config={"stripe": config},
        secrets=SECRETS,
    )  # fmt: skip
    kernel.add_workflow(WORKFLOW)
    return kernel


def survives(folder: Path, url: str, number: int) -> bool:
    """Die at the place *number*, and finish in another process; True if it came to its end."""
    folder.mkdir()

    def work(dies_at: int | None) -> None:
        kernel = make(folder, url)
        if dies_at is None:
            pass_leases(kernel)  # of the worker that died
        else:
            kernel.start("bill", {})
            die_around(ServiceClient, "arequest", dies_at)

        def is_done() -> bool:
            kernel.outbox.reap()
            kernel.run_until_idle(patience=0.1)
            return kernel.executions.find(workflow="bill")[0].status.value == "COMPLETED"

        until(is_done)

    ended = ends(lambda: work(number))
    assert ended or ends(lambda: work(None))
    return ended


if __name__ == "__main__":
    die_everywhere(survives)
