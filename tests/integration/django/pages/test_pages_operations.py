"""The pages of operations: who sees and calls which, what a form sends, and what is kept of it."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Annotated, Any, Literal, Optional, Union

import pytest
from automate_kernel import Call, Connector, action
from automate_kernel.plugins.connectors import FieldOption, options
from automate_kernel.base.errors import AutomateError
from pydantic import BaseModel, Field

BASE = "/admin/automate_django/outboxitem/operations/"
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


@contextmanager
def offered(*names: str) -> Iterator[None]:
    from django.test import override_settings

    secrets = ["automate_kernel.secrets.EnvSecretsBackend"]
    settings = {"PAGES": names}
    with override_settings(
        AUTOMATE_OPERATIONS=settings, AUTOMATE_CONNECTORS=[Desk], AUTOMATE_SECRETS=secrets
    ):
        yield


@pytest.fixture(autouse=True)
def desk(database: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A connector of the project, and no calls yet."""
    from automate_django.models import AuditEntry

    monkeypatch.setenv("AUTOMATE_SECRET_PAGES", SECRET)
    AuditEntry.objects.all().delete()
    CALLS.clear()
    with offered("desk.*", "desk.purge"):
        yield


@pytest.fixture
def caller(staff: Callable[..., Any]) -> Any:
    """A client of a user who may call operations, and operate all tenants."""
    return staff("call_operation", "operate_outbox")


def send(client: Any, name: str, **values: Any) -> Any:
    """Fill the form in as a browser does, and send it."""
    data = {"input.subject": "Help", **values} if name == "desk.open_ticket" else values
    return client.post(f"{BASE}{name}/", data)


def text_of(response: Any) -> str:
    text: str = response.content.decode()
    assert SECRET not in text
    return text


def test_only_what_is_offered_is_there(caller: Any, markup_of: Callable[[str], Any]) -> None:
    """The list links each operation; others, and all without the setting, are not found."""
    page = text_of(caller.get(BASE))
    assert markup_of(page).wrong == []
    assert f'href="{BASE}desk.open_ticket/"' in page
    assert "Open a ticket" in page
    assert "can't be taken back" in page
    for name in ("desk.none", "http.get", "nobody.knows"):
        assert caller.get(f"{BASE}{name}/").status_code == 404
        assert caller.post(f"{BASE}{name}/").status_code == 404
    with offered():
        page = text_of(caller.get(BASE))
        assert "No operations are offered here" in page
        assert f'href="{BASE}"' not in page
        assert caller.get(f"{BASE}desk.count/").status_code == 404
    with offered("desk.*"):
        assert caller.get(f"{BASE}desk.purge/").status_code == 404


@pytest.mark.parametrize(
    ("permissions", "status"),
    [
        (("operate_outbox", "view_outboxitem", "change_outboxitem"), 403),
        (("call_operation",), 403),
        (("call_operation", "operate_outbox"), 200),
    ],
)
def test_it_takes_the_permission_and_a_tenant(
    staff: Callable[..., Any], permissions: tuple[str, ...], status: int
) -> None:
    """A permission of its own; a user without a tenant, who doesn't operate all, reaches nothing."""
    client = staff(*permissions)
    assert client.get(BASE).status_code == status
    assert client.get(f"{BASE}desk.count/").status_code == status
    assert client.post(f"{BASE}desk.count/").status_code == status
    assert len(CALLS) == (status == 200)


def test_a_call_is_made_for_the_users_tenant(staff: Callable[..., Any]) -> None:
    """A user of a tenant calls for that tenant."""
    from django.test import override_settings

    client = staff("call_operation")
    with override_settings(AUTOMATE_ADMIN={"TENANT": lambda request: "acme"}):
        assert send(client, "desk.open_ticket").status_code == 200
    assert CALLS[0][1] == "acme"


def test_the_form_needs_csrf_and_post(staff: Callable[..., Any]) -> None:
    """A link or another site's form calls nothing."""
    client = staff("call_operation", "operate_outbox", enforce_csrf_checks=True)
    assert client.post(f"{BASE}desk.count/").status_code == 403
    assert client.get(f"{BASE}desk.count/", {"choices": ""}).status_code == 200
    assert client.options(f"{BASE}desk.count/").status_code == 405
    assert CALLS == []


def test_each_type_has_its_control(caller: Any, markup_of: Callable[[str], Any]) -> None:
    """Texts, numbers, boxes, choices, lists, inner objects and JSON; with defaults and help."""
    page = text_of(caller.get(f"{BASE}desk.open_ticket/"))
    assert markup_of(page).wrong == []
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


def test_a_form_becomes_the_input(caller: Any, markup_of: Callable[[str], Any]) -> None:
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
    assert (page.status_code, markup_of(text).wrong) == (200, [])
    given, tenant, key = CALLS[0]
    assert given == {
        "subject": "Help", "body": "one\ntwo", "urgent": True, "hours": 2, "level": "high",
        "tags": ["a", "b"], "queue": "q2", "watched": False, "extra": {"a": [1]},
        "address": {"street": "Main", "zip": 7}, "token_is": "callers-token-90ab",
    }  # fmt: skip
    assert tenant is None
    assert key
    assert "callers-token-90ab" not in text
    assert "&quot;subject&quot;: &quot;Help&quot;" in text
    assert "<b>" not in text.split('id="result"')[1].split("</section>")[0]


def test_controls_show_what_they_can(caller: Any, markup_of: Callable[[str], Any]) -> None:
    """A browser leaves out a time with a zone, and takes a number between exact bounds alone."""
    page = text_of(caller.get(f"{BASE}desk.odd/"))
    assert markup_of(page).wrong == []
    for part in (
        'step="1" name="input.exact" value="9007199254740993" min="9007199254740993" id',
        'name="input.share" value="0.1" min="0" max="0.1"',
        '<input type="text" name="input.at" value="10:00:30Z"',
        '<input type="time" name="input.until" value="10:00:30" step="any"',
        '<input type="date" name="input.day" value="2024-02-29"',
        '<option value="&quot;&quot;">(empty)</option>',
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
    caller: Any, values: dict[str, str], said: str
) -> None:
    page = send(caller, "desk.odd", **{f"input.{name}": text for name, text in values.items()})
    text = text_of(page)
    assert (page.status_code, text.count('aria-invalid="true"')) == (422, 1)
    assert f'<span class="problem">{said}' in text.replace("&#x27;", "'")
    assert CALLS == []


def test_a_name_may_hold_slashes(caller: Any) -> None:
    """As a service's own names do."""
    assert f'href="{BASE}desk.lists/open/all/"' in text_of(caller.get(BASE))
    assert "List lists" in text_of(caller.get(f"{BASE}desk.lists/open/all/"))
    assert "all lists" in text_of(send(caller, "desk.lists/open/all"))
    assert CALLS == ["lists"]


def test_a_form_takes_further_fields(caller: Any) -> None:
    """As one JSON object, beside a field of any name; a limit of one line isn't one of the list."""
    page = text_of(caller.get(f"{BASE}desk.forward/"))
    assert '<textarea rows="3" name="input.to" id' in page
    values = {"input.more": "text", "input.to": "ann\nbob", "input.*": '{"level": 3}'}
    assert send(caller, "desk.forward", **values).status_code == 200
    assert CALLS == [{"more": "text", "to": ["ann", "bob"], "level": 3}]
    refused = text_of(send(caller, "desk.forward", **{"input.*": "[1]"}))
    assert "Input: must be a JSON object" in refused


def test_a_call_holds_no_transaction(
    caller: Any, replica: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With ATOMIC_REQUESTS neither: the entry in the audit trail is saved before the call."""
    from automate_kernel.http.operations import ExposedOperations
    from django.db import connection, connections

    held: list[bool] = []

    def noted(self: Any, *args: Any, **options: Any) -> Any:
        held.extend(connections[each].in_atomic_block for each in ("default", replica))
        return []

    monkeypatch.setattr(ExposedOperations, "call", noted)
    monkeypatch.setattr(ExposedOperations, "choices", noted)
    for each in (connection.alias, replica):
        monkeypatch.setitem(connections.settings[each], "ATOMIC_REQUESTS", True)
    assert send(caller, "desk.count").status_code == 200
    assert send(caller, "desk.open_ticket", choices="queue").status_code == 200
    assert held and not any(held)


def test_what_is_left_blank_is_the_default(caller: Any) -> None:
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
    caller: Any, values: dict[str, str], said: str, markup_of: Callable[[str], Any]
) -> None:
    """Nothing is called; each wrong field says what is wrong with it."""
    values = {"input.body": "kept <i>", "input.api_token": "callers-token-90ab", **values}
    page = send(caller, "desk.open_ticket", **values)
    text = text_of(page)
    assert (page.status_code, markup_of(text).wrong) == (422, [])
    assert said in text
    assert 'aria-invalid="true"' in text
    assert "kept &lt;i&gt;" in text
    assert "callers-token-90ab" not in text
    assert CALLS == []


def test_text_is_literal(caller: Any) -> None:
    """A form can't have a secret resolved."""
    text_of(send(caller, "desk.open_ticket", **{"input.subject": "$secret:PAGES"}))
    assert CALLS[0][0]["subject"] == "$secret:PAGES"


def test_a_destructive_operation_is_confirmed(caller: Any) -> None:
    """Without the tick nothing happens."""
    assert "I mean it" in text_of(caller.get(f"{BASE}desk.purge/"))
    refused = send(caller, "desk.purge", **{"input.queue": "q1"})
    assert (refused.status_code, CALLS) == (422, [])
    assert "confirm that you mean it" in text_of(refused)
    done = send(caller, "desk.purge", **{"input.queue": "q1", "confirmed": "yes"})
    assert "q1 is gone" in text_of(done)
    assert CALLS == ["q1"]


def test_a_second_click_calls_once(caller: Any) -> None:
    """The same form again, by a reload or a double click, is not carried out."""
    for status in (200, 422):
        assert send(caller, "desk.count", key="the-same").status_code == status
    assert CALLS == ["count"]
    assert send(caller, "desk.count", key="another").status_code == 200


def test_failures_are_shown_with_their_code(caller: Any) -> None:
    """The service's error is on the page, without a secret; the set-up's own only in the log."""
    page = send(caller, "desk.fail")
    assert page.status_code == 422
    assert "UNAVAILABLE: no answer for [secret]" in text_of(page)


def test_the_audit_trail_has_each_call(caller: Any) -> None:
    """Who called what with which input, before it is made; a failure too; secrets never."""
    from automate_django.models import AuditEntry

    send(caller, "desk.open_ticket", **{"input.api_token": "callers-token-90ab"})
    send(caller, "desk.fail")
    send(caller, "desk.open_ticket", **{"input.hours": "x"})
    entries = list(AuditEntry.objects.order_by("pk"))
    assert [each.action for each in entries] == ["call", "call", "call_failed"]
    first, _, failed = entries
    assert (first.actor, first.object_repr) == (caller.user.username, "desk.open_ticket")
    assert first.details["input"]["subject"] == "Help"
    assert "callers-token-90ab" not in str(first.details)
    assert failed.details == {"operation": "desk.fail", "code": "UNAVAILABLE"}


def test_choices_are_looked_up_without_a_call(caller: Any, markup_of: Callable[[str], Any]) -> None:
    """The button fills a list by what the other fields are, and keeps all that was filled in."""
    page = send(
        caller, "desk.open_ticket",
        **{"input.level": "high", "input.queue": "Sec", "input.body": "kept", "choices": "queue"},
    )  # fmt: skip
    text = text_of(page)
    assert (page.status_code, markup_of(text).wrong, CALLS) == (200, [], [])
    assert '<option value="q2">Second</option>' in text
    assert '<option value="Sec" selected>Sec</option>' in text
    assert "kept" in text
    page = send(caller, "desk.open_ticket", **{"input.level": "high", "choices": "queue"})
    assert "First (high)" in text_of(page)
    broken = send(caller, "desk.open_ticket", **{"input.queue": "break", "choices": "queue"})
    assert "no queues for [secret]" in text_of(broken)
    assert "no choices" in text_of(send(caller, "desk.open_ticket", choices="body"))


def test_by_keyboard_in_a_browser(operator: Callable[..., Any]) -> None:
    """List, form, choices, call and output without a mouse, under a strict policy."""
    one = operator()
    page = one.open(BASE)
    page.get_by_role("link", name="Open a ticket").focus()
    page.keyboard.press("Enter")
    page.wait_for_url("**/desk.open_ticket/")
    page.get_by_label("Subject (required)").focus()
    page.keyboard.type("From the keyboard")
    page.get_by_role("button", name="List choices of Queue").focus()
    page.keyboard.press("Enter")
    one.waits_for("select[name='input.queue']")
    page.wait_for_function("document.activeElement.name == 'input.queue'")
    assert page.input_value("[name='input.subject']") == "From the keyboard"
    page.keyboard.type("Sec")
    page.get_by_label("Subject (required)").focus()
    page.keyboard.press("Enter")
    one.waits_for("#result")
    page.wait_for_function("document.activeElement.id == 'result'")
    assert "From the keyboard" in page.locator("#result pre").inner_text()
    assert CALLS[0][0]["queue"] == "q2"
    assert one.complaints == []
