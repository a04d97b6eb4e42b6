"""Workflows in code in a project: found by themselves, and shown on the pages."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from automate_django import get_kernel
from automate_django.kernel import automation, forget_kernel
from automate_kernel.base.errors import ConfigError
from automate_kernel.workflows.execution import ExecutionStatus
from django.conf import settings
from django.test import override_settings

MODULE = "warehouse.automation"
BASE = "/admin/automate_django/pages/"


@pytest.fixture
def warehouse(database: str) -> Iterator[None]:
    """The project with the app `warehouse`."""
    before = list(automation.actions), list(automation.workflows)
    sys.modules.pop(MODULE, None)
    with override_settings(INSTALLED_APPS=[*settings.INSTALLED_APPS, "warehouse"]):
        forget_kernel()
        yield
    automation.actions[:], automation.workflows[:] = before
    sys.modules.pop(MODULE, None)
    forget_kernel()


@pytest.mark.usefixtures("warehouse")
def test_the_module_automation_of_an_app_is_found(staff: Callable[..., Any]) -> None:
    """Its actions and workflows belong to the project's kernel, and the pages show them."""
    kernel = get_kernel()
    assert kernel.invoke("warehouse.count", {"article": "nut"}) == 3
    kernel.emit("stock.low", "nut")
    kernel.run_until_idle()
    (execution,) = kernel.executions.find(workflow="refill")
    assert (execution.status, execution.output) == (ExecutionStatus.COMPLETED, "3 more of nut")

    client = staff(superuser=True)
    its = f"{BASE}executions/{execution.id}"
    page = client.get(its).content.decode()
    assert "order_more#2" in page and "refill" in page
    step = client.get(f"{its}/steps/order_more%232/whole").content.decode()
    assert "warehouse/automation.py:" in step
    assert "1 more of spare" in step
    listed = client.get(f"{BASE}workflows").content.decode()
    assert "refill" in listed and "take_stock" in listed
    assert "event stock.low" in client.get(f"{BASE}workflows/refill").content.decode()

    answer = client.post(its, {"order": "resume", "step": "count"})
    assert answer.status_code == 303
    kernel.run_until_idle()
    again = kernel.executions.get(execution.id)
    assert again is not None and again.status is ExecutionStatus.COMPLETED


@pytest.mark.usefixtures("warehouse")
def test_a_process_without_the_code_still_shows_its_executions(staff: Callable[..., Any]) -> None:
    kernel = get_kernel()
    execution = kernel.run("take_stock")
    with override_settings(AUTOMATE_PLUGINS={"AUTODISCOVER": False, "DISCOVER": False}):
        automation.actions.clear()
        automation.workflows.clear()
        forget_kernel()
        assert "take_stock" not in get_kernel().workflows
        page = staff(superuser=True).get(f"{BASE}executions/{execution.id}")
    assert page.status_code == 200 and "count" in page.content.decode()


@pytest.mark.usefixtures("warehouse")
def test_the_kernel_can_not_be_had_while_it_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    """An `automation` module that asks for it is told what to do instead."""
    monkeypatch.setattr("automate_django.kernel.autodiscover_modules", lambda _: get_kernel())
    with pytest.raises(ConfigError, match="while the kernel is being made") as caught:
        get_kernel()
    assert "automate_django: action, workflow" in str(caught.value)
    monkeypatch.undo()
    assert "refill" in get_kernel().workflows


BROKEN_ONCE = """
from pathlib import Path
from automate_django import action, workflow
from automate_django.kernel import automation

@action("parts.count")
def count(article: str) -> int:
    return 3

@workflow(on="parts.low")
def reorder(ctx):
    return ctx.step(count, ctx.event.payload)

automation.add_workflow(
    {"name": "parts", "trigger": {"type": "manual"}, "steps": [{"id": "a", "sleep": 0}]}
)
if not Path(__file__).with_suffix(".there").exists():
    raise ConnectionError("the database doesn't answer")
"""


@pytest.mark.usefixtures("warehouse")
def test_a_module_that_failed_is_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it had collected is no second action: the next request has the kernel."""
    (tmp_path / "broken_once.py").write_text(BROKEN_ONCE)
    monkeypatch.syspath_prepend(tmp_path)
    definitions = list(automation.definitions)
    monkeypatch.setattr(
        "automate_django.kernel.autodiscover_modules", lambda _: import_module("broken_once")
    )
    for _ in range(2):
        with pytest.raises(ConnectionError, match="doesn't answer"):
            get_kernel()
    (tmp_path / "broken_once.there").touch()
    try:
        assert get_kernel().invoke("parts.count", {"article": "nut"}) == 3
        assert {"reorder", "parts"} <= {each.name for each in get_kernel().workflows}
    finally:
        automation.definitions[:] = definitions
        sys.modules.pop("broken_once", None)
