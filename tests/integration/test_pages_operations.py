"""The forms of operations: the control of each type, what a form sends, and what is kept of it."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Iterator
from typing import Annotated, Any, Literal, Optional, Union

import pytest
from paged_shop import client as browser_of
from starlette.testclient import TestClient

from automate_kernel import Call, Connector, Kernel, action
from automate_kernel.plugins.connectors import FieldOption, options
from automate_kernel.base.errors import AutomateError
from automate_pages import User
from pydantic import BaseModel, Field

BASE = "/ops/operations"
SECRET = "s3cr3t-of-the-pages-31"
CALLS: list[Any] = []


class Address(BaseModel):
    street: str
    zip: int = 1000


FORWARD = {
    "type": "object",
    "properties": {
        "more": {"type": "string"},
        "to": {"type": "array", "items": {"type": "string", "maxLength": 9}},
    },
    "additionalProperties": True,
}


class Desk(Connector):
    key = "desk"
    display_name = "Desk"

    @action(title="Open a ticket")
    def open_ticket(
        self,
        subject: Annotated[str, Field(description="In a few words.", max_length=80)],
        call: Call,
        body: str = "",
        urgent: bool = False,
        hours: Annotated[float, Field(ge=0)] = 1.5,
        level: Literal["low", "high"] = "low",
        tags: list[str] = [],
        queue: str = "inbox",
        watched: Optional[bool] = None,
        address: Optional[Address] = None,
        extra: dict[str, Any] = {},
        api_token: str = "",
    ) -> dict[str, Any]:
        """Open a ticket."""
        given = {
            "subject": subject, "body": body, "urgent": urgent, "hours": hours, "level": level,
            "tags": tags, "queue": queue, "watched": watched, "extra": extra,
            "address": address and address.model_dump(), "token_is": api_token,
        }  # fmt: skip
        CALLS.append((given, call.tenant_id, call.idempotency_key))
        return {**given, "host": self.ctx.secrets.get("PAGES"), "note": f"<b>{api_token}</b>"}

    @action(input_schema=FORWARD)
    def forward(self, fields: dict[str, Any]) -> str:
        """Forward a ticket, with any fields."""
        CALLS.append(fields)
        return "forwarded"

    @action("lists/open/all")
    def open_lists(self) -> str:
        """List lists: services have names of their own."""
        CALLS.append("lists")
        return "all lists"

    @action
    def odd(
        self,
        exact: Annotated[int, Field(ge=9007199254740993, le=10**400)] = 9007199254740993,
        share: Annotated[float, Field(ge=0, le=0.1)] = 0.1,
        at: dt.time = dt.time(10, 0, 30, tzinfo=dt.timezone.utc),
        until: dt.time = dt.time(10, 0, 30),
        day: dt.date = dt.date(2024, 2, 29),
        mark: Literal["", "a"] = "a",
        lines: list[Address] = [],
        other: Union[Address, int, None] = None,
    ) -> str:
        """Take what few forms have."""
        CALLS.append((exact, share, at, until, day, mark, lines, other))
        return "done"

    @action(read_only=True)
    def count(self) -> int:
        """Count tickets."""
        CALLS.append("count")
        return 3

    @action(destructive=True)
    def purge(self, queue: str) -> str:
        """Delete a queue."""
        CALLS.append(queue)
        return f"{queue} is gone"

    @action
    def fail(self, code: str = "UNAVAILABLE") -> None:
        """Fail."""
        raise AutomateError(code, f"no answer for {self.ctx.secrets.get('PAGES')}")

    @options("queue")
    def queues(self, level: str = "low", search: str = "") -> list[FieldOption]:
        if search == "break":
            raise ConnectionError(f"no queues for {self.ctx.secrets.get('PAGES')}")
        known = [FieldOption("q1", f"First ({level})"), FieldOption("q2", "Second")]
        return [each for each in known if search in each.label]


class Desked:
    """A kernel with the desk alone."""

    def __init__(self) -> None:
        self.kernel = Kernel(discover=False, secrets={"PAGES": SECRET})
        self.kernel.register(Desk, "connector", key="desk")


@pytest.fixture
def caller() -> Iterator[TestClient]:
    """A browser of an author, who may call what is offered."""
    CALLS.clear()
    desked = Desked()
    author = User("ann", ["author", "admin"], None)
    browser = browser_of(desked, author, operations=["desk.*", "desk.purge"])  # type: ignore[arg-type]
    browser.desk = desked.kernel  # type: ignore[attr-defined]
    yield browser
    desked.kernel.close()


def form_of(caller: TestClient, name: str) -> Any:
    return caller.get(BASE, params={"name": name})


def send(caller: TestClient, name: str, **values: Any) -> Any:
    """Fill the form in as a browser does, and send it."""
    page = form_of(caller, name).text
    hidden = dict(re.findall(r'<input type="hidden" name="(csrf|key)" value="([^"]*)">', page))
    data = {"input.subject": "Help", **values} if name == "desk.open_ticket" else values
    return caller.post(BASE, data={"name": name, **hidden, **data})


def text_of(response: Any) -> str:
    text: str = response.text
    assert SECRET not in text
    return text


def test_each_type_has_its_control(caller: TestClient) -> None:
    """Texts, numbers, boxes, choices, lists, inner objects and JSON; with defaults and help."""
    page = text_of(form_of(caller, "desk.open_ticket"))
    for part in (
        '<input type="text" name="input.subject" value="" maxlength="80"',
        'aria-describedby="about-input.subject" required',
        "In a few words.",
        '<textarea rows="3" name="input.body"',
        '<input type="checkbox" value="true" name="input.urgent"',
        '<input type="number" step="any" name="input.hours" value="1.5" min="0"',
        '<option value="low" selected>low</option>',
        'name="input.address.street"',
        '<input type="number" step="1" name="input.address.zip" value="1000"',
        'type="password" name="input.api_token" value="" autocomplete="new-password"',
        'name="choices" value="queue"',
        '<option value="true">Yes</option>',
        "One in each line.",
        "As JSON.",
    ):
        assert part in page, part


def test_a_form_becomes_the_input(caller: TestClient) -> None:
    """What is filled in reaches the operation by its types, and the output comes back."""
    page = send(
        caller, "desk.open_ticket",
        **{
            "input.body": "one\r\ntwo", "input.urgent": ["false", "true"], "input.hours": "2",
            "input.level": "high", "input.tags": "a\r\n\r\nb", "input.queue": "q2",
            "input.watched": "false", "input.address.street": "Main", "input.address.zip": "7",
            "input.extra": '{"a": [1]}', "input.api_token": "callers-token-90ab", "key": "k",
        },
    )  # fmt: skip
    text = text_of(page)
    assert page.status_code == 200
    given, tenant, key = CALLS[0]
    assert given == {
        "subject": "Help", "body": "one\ntwo", "urgent": True, "hours": 2, "level": "high",
        "tags": ["a", "b"], "queue": "q2", "watched": False, "extra": {"a": [1]},
        "address": {"street": "Main", "zip": 7}, "token_is": "callers-token-90ab",
    }  # fmt: skip
    assert tenant is None
    assert key
    assert "callers-token-90ab" not in text
    assert "&#34;subject&#34;: &#34;Help&#34;" in text
    assert "<b>" not in text.split('id="result"')[1].split("</section>")[0]


def test_controls_show_what_they_can(caller: TestClient) -> None:
    """A browser leaves out a time with a zone, and takes a number between exact bounds alone."""
    page = text_of(form_of(caller, "desk.odd"))
    for part in (
        'step="1" name="input.exact" value="9007199254740993" min="9007199254740993" id',
        'name="input.share" value="0.1" min="0" max="0.1"',
        '<input type="text" name="input.at" value="10:00:30Z"',
        '<input type="time" name="input.until" value="10:00:30" step="any"',
        '<input type="date" name="input.day" value="2024-02-29"',
        '<option value="&#34;&#34;">(empty)</option>',
    ):
        assert part in page, part
    values = {"at": "10:00+02:00", "until": "11:00", "mark": '""', "lines": '[{"street": "Main"}]'}
    page = send(caller, "desk.odd", **{f"input.{name}": text for name, text in values.items()})
    assert page.status_code == 200
    ((_, _, at, until, _, mark, lines, _),) = CALLS
    assert (at.utcoffset(), until, mark) == (dt.timedelta(hours=2), dt.time(11), "")
    assert lines == [Address(street="Main")]


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"lines": '[{"street": "a"}, {"zip": 1}]'}, "Lines: 1.street: Field required."),
        ({"other": '{"zip": 1}'}, "Other: Address.street: Field required; int: Input should"),
        ({"lines": '[{"street": "\\ud800"}]'}, "Lines: 0.street: it holds a NUL character or half"),
        ({"exact": "9" * 400}, "Exact: must be a number that JSON"),
        ({"day": "2024-02-30"}, "Day: Input should be a valid date"),
    ],
)
def test_what_is_wrong_inside_of_a_field_stands_at_it(
    caller: TestClient, values: dict[str, str], said: str
) -> None:
    page = send(caller, "desk.odd", **{f"input.{name}": text for name, text in values.items()})
    text = text_of(page)
    assert (page.status_code, text.count('aria-invalid="true"')) == (422, 1)
    assert f'<span class="problem">{said}' in text.replace("&#39;", "'")
    assert CALLS == []


def test_a_name_may_hold_slashes(caller: TestClient) -> None:
    """As a service's own names do."""
    assert f'href="{BASE}?name=desk.lists%2Fopen%2Fall"' in text_of(caller.get(BASE))
    assert "List lists" in text_of(form_of(caller, "desk.lists/open/all"))
    assert "all lists" in text_of(send(caller, "desk.lists/open/all"))
    assert CALLS == ["lists"]


def test_a_form_takes_further_fields(caller: TestClient) -> None:
    """As one JSON object, beside a field of any name; a limit of one line isn't one of the list."""
    page = text_of(form_of(caller, "desk.forward"))
    assert '<textarea rows="3" name="input.to" id' in page
    values = {"input.more": "text", "input.to": "ann\nbob", "input.*": '{"level": 3}'}
    assert send(caller, "desk.forward", **values).status_code == 200
    assert CALLS == [{"more": "text", "to": ["ann", "bob"], "level": 3}]
    refused = text_of(send(caller, "desk.forward", **{"input.*": "[1]"}))
    assert "Input: must be a JSON object" in refused


def test_what_is_left_blank_is_the_default(caller: TestClient) -> None:
    """A blank field takes the default; a text whose default was deleted is empty."""
    blank = dict.fromkeys(
        ("hours", "tags", "watched", "address.street", "address.zip", "extra", "api_token"), ""
    )
    send(
        caller, "desk.open_ticket", **{f"input.{name}": text for name, text in blank.items()},
        **{"input.queue": ""},
    )  # fmt: skip
    given = CALLS[0][0]
    assert (given["hours"], given["tags"], given["watched"]) == (1.5, [], None)
    assert (given["address"], given["extra"], given["queue"]) == (None, {}, "")


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"input.hours": "x"}, "Hours: must be a number"),
        ({"input.hours": "1_0"}, "Hours: must be a number"),
        ({"input.hours": "-1"}, "Hours: Input should be greater than or equal to 0"),
        ({"input.extra": "{"}, "Extra: must be JSON"),
        ({"input.subject": "", "input.body": "kept <i>"}, "Subject: Field required"),
        ({"input.address.zip": "7"}, "Address street: Field required"),
        ({"input.level": "mid"}, "Level: must be one of low, high"),
    ],
)
def test_wrong_fields_are_marked_and_the_rest_is_kept(
    caller: TestClient, values: dict[str, str], said: str
) -> None:
    """Nothing is called; each wrong field says what is wrong with it."""
    values = {"input.body": "kept <i>", "input.api_token": "callers-token-90ab", **values}
    page = send(caller, "desk.open_ticket", **values)
    text = text_of(page)
    assert page.status_code == 422
    assert said in text
    assert 'aria-invalid="true"' in text
    assert "kept &lt;i&gt;" in text
    assert "callers-token-90ab" not in text
    assert CALLS == []


def test_text_is_literal(caller: TestClient) -> None:
    """A form can't have a secret resolved."""
    text_of(send(caller, "desk.open_ticket", **{"input.subject": "$secret:PAGES"}))
    assert CALLS[0][0]["subject"] == "$secret:PAGES"


def test_a_destructive_operation_is_confirmed(caller: TestClient) -> None:
    """Without the tick nothing happens."""
    assert "I mean it" in text_of(form_of(caller, "desk.purge"))
    refused = send(caller, "desk.purge", **{"input.queue": "q1"})
    assert (refused.status_code, CALLS) == (422, [])
    assert "confirm that you mean it" in text_of(refused)
    done = send(caller, "desk.purge", **{"input.queue": "q1", "confirmed": "yes"})
    assert "q1 is gone" in text_of(done)
    assert CALLS == ["q1"]


def test_a_second_click_calls_once(caller: TestClient) -> None:
    """The same form again, by a reload or a double click, is not carried out."""
    for status in (200, 422):
        assert send(caller, "desk.count", key="the-same").status_code == status
    assert CALLS == ["count"]
    assert send(caller, "desk.count", key="another").status_code == 200


def test_failures_are_shown_with_their_code(caller: TestClient) -> None:
    """The service's error is on the page, without a secret; the set-up's own only in the log."""
    page = send(caller, "desk.fail")
    assert page.status_code == 422
    assert "UNAVAILABLE: no answer for [secret]" in text_of(page)


def test_choices_are_looked_up_without_a_call(caller: TestClient) -> None:
    """The button fills a list by what the other fields are, and keeps all that was filled in."""
    page = send(
        caller, "desk.open_ticket",
        **{"input.level": "high", "input.queue": "Sec", "input.body": "kept", "choices": "queue"},
    )  # fmt: skip
    text = text_of(page)
    assert (page.status_code, CALLS) == (200, [])
    assert '<option value="q2">Second</option>' in text
    assert '<option value="Sec" selected>Sec</option>' in text
    assert "kept" in text
    page = send(caller, "desk.open_ticket", **{"input.level": "high", "choices": "queue"})
    assert "First (high)" in text_of(page)
    broken = send(caller, "desk.open_ticket", **{"input.queue": "break", "choices": "queue"})
    assert "no queues for [secret]" in text_of(broken)
    assert "no choices" in text_of(send(caller, "desk.open_ticket", choices="body"))
