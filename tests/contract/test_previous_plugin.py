"""
A plugin that was built against the last minor version works unchanged.

It is a distribution of its own, in ``tests/previous``, and never edited: it is installed here by its
metadata alone, found by its entry points, and its own tests run.
"""

from __future__ import annotations

import asyncio
import hashlib
import importlib.util
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from automate_kernel import Kernel
from automate_kernel.base.errors import AutomateError, ErrorCodes
from automate_kernel.outbox import OutboxStore
from automate_kernel.triggers.webhooks import HmacSignature
from defined import define

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

PLUGIN = Path(__file__).parents[1] / "previous" / "automate-frozen"
# Written down when it was made. A hash that differs is not mended here: the plugin is put back.
FROZEN = json.loads((PLUGIN.parent / "automate-frozen.json").read_text())

sys.path.insert(0, str(PLUGIN / "src"))
_spec = importlib.util.spec_from_file_location("frozen_tests", PLUGIN / "tests/test_frozen.py")
assert _spec is not None
assert _spec.loader is not None
_module = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_module)
# Its author's own tests, collected here.
globals().update({k: v for k, v in vars(_module).items() if k.startswith(("Test", "test_"))})


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Install it: its metadata and entry points, as a package installer writes them."""
    project = tomllib.loads((PLUGIN / "pyproject.toml").read_text())["project"]
    info = tmp_path / f"{project['name'].replace('-', '_')}-{project['version']}.dist-info"
    info.mkdir()
    needs = "".join(f"Requires-Dist: {each}\n" for each in project["dependencies"])
    (info / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n{needs}"
    )
    groups = [
        f"[{group}]\n" + "".join(f"{key} = {target}\n" for key, target in entries.items())
        for group, entries in project["entry-points"].items()
    ]
    (info / "entry_points.txt").write_text("\n".join(groups))
    monkeypatch.syspath_prepend(tmp_path)


@pytest.fixture
def kernel(installed: None) -> Iterator[Kernel]:
    """A kernel that has found it."""
    config = {"frozen": {"token": "$secret:DRAWER"}, "frozen-math": {"precision": 1}}
    with Kernel(
        secrets=["frozen-drawer"], config=config, outbox="frozen-store", strict=False
    ) as kernel:
        yield kernel


def test_it_is_as_it_was() -> None:
    """No file of it was changed, added or taken away."""
    found = {
        str(path.relative_to(PLUGIN)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(PLUGIN.rglob("*"))
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert found == FROZEN, "it is never edited: put it back, and mend the kernel"


def test_each_kind_is_found_and_loads(kernel: Kernel) -> None:
    """The entry points of all five groups lead to plugins that load."""
    kernel.plugins.load_all()
    records = [each for each in kernel.plugins.records() if each.distribution == "automate-frozen"]
    assert {(each.kind, each.state.value) for each in records} == {
        (kind, "LOADED")
        for kind in ("connector", "provider", "secrets_backend", "filter", "outbox_store")
    }
    assert not {key for _, key in kernel.operations.plugin_problems() if key.startswith("frozen")}


def test_its_operations_are_called(kernel: Kernel) -> None:
    """Models, typed parameters, plain and asynchronous, with config and secrets."""
    sent = {"channel": "C1", "text": "hi there"}
    receipt = kernel.invoke("frozen.post_message", sent, idempotency_key="k")
    assert receipt == {"ts": "k", "channel": "C1"}
    assert asyncio.run(kernel.ainvoke("frozen.count", {"prefix": "hi"})) == {"count": 1}
    assert kernel.invoke("frozen-math.add", {"numbers": [1, 2.25]}) == {"total": 3.2}
    assert kernel.invoke("frozen-math.double", {"x": 4}) == {"x": 8}
    assert kernel.connector("frozen").check() == "it stands still"
    assert kernel.operation("frozen.count").title == "Count"
    assert kernel.operation("frozen.fail").destructive


def test_its_errors_keep_their_code(kernel: Kernel) -> None:
    """`normalize_error` is asked, and invalid input is refused before a call."""
    with pytest.raises(AutomateError, match="the service is down") as caught:
        kernel.invoke("frozen.fail", {"why": "the service is down"})
    assert (caught.value.code, caught.value.retry_after) == (ErrorCodes.UNAVAILABLE, 3)
    with pytest.raises(AutomateError) as caught:
        kernel.invoke("frozen.post_message", {"text": 5})
    assert caught.value.code is ErrorCodes.INVALID_ARGUMENT


def test_its_filter_and_its_secret_are_used_in_a_workflow(installed: None) -> None:
    """A workflow calls it, with a filter in its templates."""
    config = {"frozen": {"token": "$secret:DRAWER"}}
    with Kernel(secrets=["frozen-drawer"], config=config) as kernel:
        define(
            kernel,
            {
                "id": "post",
                "action": "frozen.post_message",
                "input": {"channel": "C1", "text": "{{ event.payload | frozen_shout }}"},
            },
            name="shouting",
            output="{{ steps.post.output.channel }}",
        )
        assert kernel.run("shouting", "hello").output == "C1"
        assert kernel.connector("frozen").sent == ["HELLO!"]


def test_its_webhook_is_verified(installed: None) -> None:
    """The signature scheme, the delivery id and the event's name are as they were."""
    body = b'{"a": 1}'
    with Kernel(secrets={"FROZEN_HOOK": "a-secret-of-the-hook", "DRAWER": "x" * 20}) as kernel:
        signature = HmacSignature("FROZEN_HOOK", header="X-Frozen-Signature")
        headers = {**signature.sign(body, "a-secret-of-the-hook"), "X-Frozen-Delivery": "d"}
        receipt = kernel.receive_webhook("frozen", "posted", headers, body)
        again = kernel.receive_webhook("frozen", "posted", headers, body)
        assert (receipt.duplicate, again.duplicate) == (False, True)
        assert kernel.outbox.find()[0].payload["name"] == "frozen.posted"


def test_its_store_holds_a_kernels_items(kernel: Kernel) -> None:
    """A store with the abstract methods alone accepts, claims, finishes and reports."""
    done: list[Any] = []

    @kernel.handler("note")
    def note(item: Any) -> None:
        done.append(item.payload)

    assert isinstance(kernel.outbox, OutboxStore)
    assert type(kernel.outbox).__name__ == "FrozenStore"
    ids = [kernel.outbox.enqueue("note", number) for number in (1, 2)]
    kernel.run_until_idle(kinds=["note"])
    assert done == [1, 2]
    assert {each.id for each in kernel.outbox.find(status="COMPLETED")} == set(ids)
    assert kernel.outbox.purge(older_than_seconds=0) == 2
