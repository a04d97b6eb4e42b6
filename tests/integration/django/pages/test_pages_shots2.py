from __future__ import annotations
from pathlib import Path
import pytest


@pytest.mark.parametrize("look", ["light", "dark", "phone"])
def test_shots2(kernel, fail, alive, operator, look):
    from automate_kernel.errors import AutomateError, ErrorCodes

    @kernel.action("orders.load")
    def load() -> dict:
        return {"order": {"id": 7, "total": 129.5, "api_key": "x"}}

    @kernel.action("slack.say")
    def say() -> dict:
        raise AutomateError(ErrorCodes.INVALID_ARGUMENT, "channel #orders is archived")

    kernel.add_workflow(
        {
            "name": "order-ship",
            "trigger": {"type": "manual"},
            "steps": [
                {"id": "load", "action": "orders.load", "input": {}},
                {"id": "charge", "action": "orders.load", "input": {}, "needs": ["load"]},
                {"id": "pack", "action": "orders.load", "input": {}, "needs": ["load"]},
                {"id": "notify", "action": "slack.say", "input": {}, "needs": ["charge", "pack"]},
            ],
        }
    )
    for i in range(3):
        x = kernel.start("order-ship", {"n": i})
    kernel.run_until_idle()
    options = {"color_scheme": "dark" if look == "dark" else "light"}
    options["viewport"] = (
        {"width": 390, "height": 844} if look == "phone" else {"width": 1280, "height": 860}
    )
    one = operator(**options)
    shots = Path("/tmp/shots")
    for name, path in {
        "executions": "workflowexecution/",
        "execution": f"workflowexecution/{x}/change/",
        "tokens": "apitoken/",
        "token-add": "apitoken/add/",
        "audit": "auditentry/",
        "workflows": "workflowdocument/",
    }.items():
        page = one.open("/admin/automate_django/" + path)
        page.wait_for_timeout(200)
        print(name, page.title(), page.evaluate("document.documentElement.scrollWidth"))
        page.screenshot(path=shots / f"{name}-{look}.png", full_page=True)
    print(one.complaints)
