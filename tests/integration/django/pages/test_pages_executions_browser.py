"""Executions and workflows in a real browser, under a policy that forbids inline style and script."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from automate_django import definitions
from automate_django.models import WorkflowDocument
from django.db import connections

EXECUTIONS = "/admin/automate_django/workflowexecution/"
WORKFLOWS = "/admin/automate_django/workflowdocument/"
PATIENCE = 60.0
SHIP = """\
name: ship
trigger: {type: event, event: order.paid}
steps:
  - {id: pick, action: gate.pass, input: {name: pick}}
  - {id: label, action: gate.pass, input: {name: label}, needs: []}
  - {id: send, action: gate.pass, input: {name: send}, needs: [pick, label]}
output: "{{ steps.send.output }}"
"""


class Gates:
    """Lets each call of an action through when it is told to."""

    def __init__(self) -> None:
        self._gates: dict[str, threading.Event] = {}
        self._lock = threading.Lock()

    def __getitem__(self, name: str) -> threading.Event:
        with self._lock:
            return self._gates.setdefault(name, threading.Event())


@pytest.fixture
def gates() -> Gates:
    return Gates()


@pytest.fixture
def run(kernel: Any, gates: Gates, database: str) -> Iterator[Callable[[str], None]]:
    """Runs what is due, in a thread of its own."""

    @kernel.action("gate.pass")
    def pass_(name: str) -> str:
        assert gates[name].wait(PATIENCE)
        return f"<i>{name}</i>"

    threads: list[threading.Thread] = []

    def work() -> None:
        try:
            kernel.run_until_idle()
        finally:
            connections.close_all()

    def run() -> None:
        threads.append(threading.Thread(target=work))
        threads[-1].start()

    yield run
    for name in ("pick", "label", "send"):
        gates[name].set()
    for thread in threads:
        thread.join(PATIENCE)


def status_of(page: Any, key: str, status: str) -> None:
    """Wait until a step has a status."""
    row = page.locator(f'tr[data-key="{key}"] [data-field="status"]')
    row.filter(has_text=status).wait_for(timeout=PATIENCE * 1000)


def test_an_execution_is_followed_to_its_end(
    kernel: Any, operator: Any, run: Any, gates: Gates
) -> None:
    """Steps change before the eyes, without a reload, until it has ended; then nobody asks."""
    definitions.create(SHIP)
    execution_id = kernel.start("ship")
    one = operator()
    asked: list[str] = []
    one.page.on("request", lambda r: asked.append(r.url) if "/progress/" in r.url else None)
    page = one.open(f"{EXECUTIONS}{execution_id}/change/")
    page.evaluate("window.stayed = true")
    status_of(page, "send", "PENDING")
    run()
    status_of(page, "pick", "RUNNING")
    status_of(page, "label", "RUNNING")
    gates["label"].set()
    status_of(page, "label", "COMPLETED")
    status_of(page, "pick", "RUNNING")
    assert page.locator('[data-progress-part="output"]').is_hidden()
    bar = page.locator('tr[data-key="label"] rect.bar')
    assert int(bar.get_attribute("width")) > 0
    gates["pick"].set()
    gates["send"].set()
    page.locator('[data-progress-field="live"]').filter(has_text="Ended").wait_for()
    assert page.locator("h1 .automate-badge").inner_text() == "COMPLETED"
    assert page.locator('[data-progress-field="output"]').inner_text() == '"<i>send</i>"'
    assert page.locator("text=Cancel").is_hidden()
    assert page.evaluate("window.stayed")
    before = len(asked)
    page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
    page.wait_for_function("new Promise(done => setTimeout(() => done(true), 1500))")
    assert len(asked) == before
    assert one.complaints == []


def test_nobody_asks_for_a_page_that_is_not_looked_at(kernel: Any, operator: Any, run: Any) -> None:
    """In a hidden tab the script is still, and it takes up again when the tab is shown."""
    definitions.create(SHIP)
    execution_id = kernel.start("ship")
    one = operator()
    one.page.clock.install()
    asked: list[str] = []
    answered: list[int] = []
    one.page.on("request", lambda r: asked.append(r.url) if "/progress/" in r.url else None)
    one.page.on("response", lambda r: answered.append(r.status) if "/progress/" in r.url else None)
    page = one.open(f"{EXECUTIONS}{execution_id}/change/")

    def look(hidden: bool) -> None:
        page.evaluate(
            "hidden => { Object.defineProperty(document, 'hidden', {value: hidden, "
            "configurable: true}); document.dispatchEvent(new Event('visibilitychange')); }",
            hidden,
        )

    with page.expect_response("**/progress/"):
        page.clock.run_for(1100)
    look(hidden=True)
    seen = len(asked)
    page.clock.run_for(120_000)
    assert len(asked) == seen
    with page.expect_response("**/progress/"):
        look(hidden=False)
        page.clock.run_for(200)
    # Nothing has changed since: the server has nothing to say.
    assert answered[-1] == 304


def test_without_script_the_page_is_complete(kernel: Any, operator: Any) -> None:
    """Steps, picture and buttons are there; a reload shows how far it has come."""
    kernel.action("gate.pass")(_pass)
    definitions.create(SHIP)
    execution_id = kernel.start("ship")
    one = operator(java_script_enabled=False)
    page = one.open(f"{EXECUTIONS}{execution_id}/change/")
    assert "Reload the page" in page.locator("noscript").first.inner_text()
    kernel.run_until_idle()
    page.reload()
    assert page.locator("h1 .automate-badge").inner_text() == "COMPLETED"
    one.press("text=Start again")
    assert "another execution" in page.locator(".messagelist").inner_text()


def _pass(name: str) -> str:
    return name


def test_a_workflow_is_edited_wrongly_and_then_right(kernel: Any, operator: Any) -> None:
    """The problems stand above the text with their lines; mended, it is saved and drawn."""
    one = operator()
    page = one.open(WORKFLOWS)
    one.press("text=New workflow")
    wrong = SHIP.replace("id: label, action:", "id: label, acton:")
    page.fill("textarea[name=source]", wrong)
    one.press("button[name=save]")
    problems = page.locator("#automate-problems li")
    assert problems.count() == 2
    assert "did you mean 'action'?" in page.locator("#automate-problems").inner_text()
    assert "5 |   - {id: label, acton:" in page.locator("#automate-problems").inner_text()
    assert not WorkflowDocument.objects.exists()
    page.fill("textarea[name=source]", SHIP)
    page.fill("input[name=comment]", "Ship what is paid")
    one.press("button[name=save]")
    # This process has no such action.
    assert "there is no action 'gate.pass'" in page.locator("[role=alert]").inner_text()
    one.press("button[name=agreed]")
    assert "Workflow ship is saved, and on." in page.locator(".messagelist").inner_text()
    names = page.locator("svg.automate-graph g title").all_text_contents()
    assert names == ["pick", "label", "send"]
    one.press("text=Version 1")
    assert "Ship what is paid" in page.locator(".automate-facts").inner_text()
    assert one.complaints == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_pages_fit_a_phone_in_either_scheme(kernel: Any, operator: Any, scheme: str) -> None:
    """Nothing sticks out sideways, and text stands apart from its ground."""
    kernel.action("gate.pass")(_pass)
    document = definitions.create(SHIP)
    execution_id = kernel.start("ship")
    kernel.run_until_idle()
    one = operator(viewport={"width": 390, "height": 844}, color_scheme=scheme)
    for path in (
        EXECUTIONS,
        f"{EXECUTIONS}{execution_id}/change/",
        f"{EXECUTIONS}{execution_id}/steps/send/",
        WORKFLOWS,
        f"{WORKFLOWS}{document.pk}/",
        f"{WORKFLOWS}{document.pk}/versions/1/",
        f"{WORKFLOWS}{document.pk}/change/",
    ):
        page = one.open(path)
        assert page.evaluate("document.documentElement.scrollWidth") <= 390, path
    page = one.open(f"{WORKFLOWS}{document.pk}/")
    assert (
        page.evaluate(CONTRAST, ["svg.automate-graph .name", "svg.automate-graph rect.box"]) > 4.5
    )
    assert one.complaints == []


CONTRAST = """([text, ground]) => {
  const shine = (selector) => {
    const fill = getComputedStyle(document.querySelector(selector)).fill;
    const parts = fill.match(/[0-9.]+/g).slice(0, 3).map((part) => {
      const value = Number(part) / 255;
      return value <= 0.03928 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4;
    });
    return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2];
  };
  const [a, b] = [shine(text), shine(ground)].sort((x, y) => y - x);
  return (a + 0.05) / (b + 0.05);
}"""


def test_a_picture_is_shown_whole(operator: Any, kernel: Any) -> None:
    """With what it does on failure, which stands at its end."""
    names = [f"step{number}" for number in range(7)]
    kernel.add_workflow(
        {
            "name": "tall",
            "trigger": {"type": "manual"},
            "steps": [
                {"id": name, "action": "gate.none", "needs": names[number - 1 : number]}
                for number, name in enumerate(names)
            ],
            "on_failure": [{"id": "tell", "action": "gate.none"}],
        }
    )
    page = operator().open(f"{EXECUTIONS}{kernel.start('tall')}/change/")
    hidden = "one => [one.scrollHeight - one.clientHeight, one.scrollWidth - one.clientWidth]"
    assert max(page.locator(".automate-picture").evaluate(hidden)) <= 0
    box = page.locator(".automate-graph text", has_text="tell").first.bounding_box()
    graph = page.locator(".automate-graph").bounding_box()
    assert box["y"] + box["height"] < graph["y"] + graph["height"]
