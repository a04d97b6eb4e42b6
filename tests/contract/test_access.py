"""Tokens, sessions, saved queries and the audit trail: when they end, and what is kept of them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from automate_kernel import AutomateError, ConfigError, Connector, Kernel
from automate_kernel.access.roles import ROLES, SCOPES, scopes_of
from automate_kernel.access.sessions import SessionStore
from automate_kernel.base.errors import ErrorCodes, PayloadError, StorageError
from automate_kernel.operations.account import Consent
from automate_kernel.secrets import WritableFileSecretsBackend
from automate_kernel.storage import MemoryStorage
from automate_kernel.storage.tables import AUDIT, CONSENT, SESSION, TOKEN
from automate_testing.clock import FakeClock

pytestmark = pytest.mark.any_storage


@pytest.fixture
def storage(clocked_storage: Any) -> Any:
    return clocked_storage


@pytest.fixture
def kernel(storage: Any) -> Iterator[Kernel]:
    with Kernel(storage, secrets={"KEY": "hunter2-of-the-shop"}) as made:
        yield made


def everything(storage: Any, *tables: str) -> str:
    """Return all that is stored, as text."""
    with storage.begin() as rows:
        return json.dumps([rows.select(table) for table in tables], default=str)


# -- roles -----------------------------------------------------------------------------------


def test_each_role_opens_what_it_is_for() -> None:
    """A role's scopes are known, and no role but the admin's has all of them."""
    for role in ROLES:
        assert scopes_of([role]) <= {*SCOPES, "*"}
        assert ("*" in scopes_of([role])) == (role == "admin")
    assert scopes_of(["finance"]) == set()
    assert "outbox:write" in scopes_of(["operator"])
    assert "outbox:write" not in scopes_of(["approver", "viewer"])


# -- accounts --------------------------------------------------------------------------------


class Account:
    """An account whose service asks at an address, and whose tokens are counted."""

    key = "crm-account"

    def __init__(self, url: str = "https://crm.example/ask?state=s1") -> None:
        self.url, self.answers = url, list[str]()

    def for_tenant(self, tenant: str | None) -> Account:
        return self

    def begin(self, redirect_uri: str) -> Consent:
        return Consent(self.url, redirect_uri, {"verifier": "v3rifier"})

    def finish(self, consent: Consent, answer_url: str, secrets: Any, *, by: str) -> None:
        assert consent.private == {"verifier": "v3rifier"}
        self.answers.append(f"{by} {answer_url}")


def test_an_answer_counts_once_for_who_asked(
    storage: Any, clock: FakeClock, tmp_path: Path
) -> None:
    """In ten minutes, in the same session and browser; the proof is in no table."""
    account = Account()
    crm = type("Crm", (Connector,), {"key": "crm", "oauth": lambda self: account})
    writable = WritableFileSecretsBackend(tmp_path)
    with Kernel(storage, plugins=[crm], secrets=[writable], discover=False) as kernel:
        desk, back = kernel.accounts, "https://ops.example/back"
        begin = partial(desk.begin, "connector", "crm", None, back, by="ada", session="s")
        asked = begin()
        stored = everything(storage, CONSENT)
        assert "v3rifier" not in stored
        assert asked.kept not in stored
        for query, kept, who in (
            ("state=s2", asked.kept, {}), ("", asked.kept, {}), ("state=s1", "", {}),
            ("state=s1&state=s1", asked.kept, {}), ("state=s1", asked.kept[:-1], {}),
            ("state=s1", asked.kept, {"by": "eve"}), ("state=s1", asked.kept, {"session": ""}),
        ):  # fmt: skip
            with pytest.raises(AutomateError) as refused:
                desk.finish(query, kept, **{"by": "ada", "session": "s", **who})
            assert refused.value.code is ErrorCodes.PERMISSION_DENIED, query
        done = desk.finish("state=s1&code=c", asked.kept, by="ada", session="s")
        assert (done.key, done.tenant, done.secret) == ("crm", None, "crm-account")
        assert account.answers == [f"ada {back}?state=s1&code=c"]
        with pytest.raises(AutomateError):
            desk.finish("state=s1&code=c", asked.kept, by="ada", session="s")
        late = begin()
        clock.advance(601)
        with pytest.raises(AutomateError):
            desk.finish("state=s1", late.kept, by="ada", session="s")
        assert (desk.purge(), desk.purge()) == (1, 0)
        for url in ("javascript:alert(1)?state=s", "https://crm.example/ask"):
            account.url = url
            with pytest.raises(AutomateError, match="can't be opened"):
                begin()
        for kind, key in (("filter", "crm"), ("connector", "none")):
            with pytest.raises(AutomateError) as unknown:
                desk.find(kind, key, None)
            assert unknown.value.code is ErrorCodes.NOT_FOUND


# -- tokens ----------------------------------------------------------------------------------


def test_a_token_is_found_by_its_text_alone(kernel: Kernel, storage: Any) -> None:
    token, text = kernel.tokens.new("ada", roles=["operator"], scopes=["api:*"], tenant_id="acme")
    other, _ = kernel.tokens.new("bob", roles=["viewer"])
    found = kernel.tokens.find(text)
    assert found is not None
    assert (found.id, found.name, found.tenant_id) == (token.id, "ada", "acme")
    assert (other.all_tenants, token.all_tenants) == (True, False)
    assert [found.allows(each) for each in ("outbox:write", "api:read", "approvals:write")] == [
        True, True, False,
    ]  # fmt: skip
    wrong = [
        text[:-1], text + "x", text.upper(), f"atk_{other.prefix}_{text[17:]}", "", "atk_", "atk__",
        text.replace("atk", "ghp"), f"atk_{token.prefix}_", "\x00", "a" * 100_000, "atk_\u0661_x",
        f"{text}\n", "\ud800",
    ]  # fmt: skip
    assert [kernel.tokens.find(each) for each in wrong] == [None] * len(wrong)
    secret = text.removeprefix(f"atk_{token.prefix}_")
    assert secret not in everything(storage, TOKEN)
    assert secret not in repr(found)


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ({"roles": ["operater"]}, "did you mean 'operator'"),
        ({}, "could do nothing"),
        ({"roles": ["viewer"], "tenant_id": ""}, "tenant_id is empty"),
        ({"roles": ["viewer"], "expires_in_seconds": 0}, "the token's time"),
        ({"roles": ["viewer"], "expires_in_seconds": 1e300}, "the token's time"),
        ({"roles": ["viewer"], "expires_in_seconds": float("nan")}, "the token's time"),
        ({"roles": 7}, "roles is a list"),
    ],
)
def test_a_wrong_token_is_refused_with_a_remedy(
    kernel: Kernel, given: dict[str, Any], problem: str
) -> None:
    with pytest.raises((ConfigError, PayloadError)) as refused:
        kernel.tokens.new("ada", **given)
    assert problem in str(refused.value)
    assert kernel.tokens.page().tokens == []


def test_a_token_ends(kernel: Kernel, storage: Any, clock: FakeClock) -> None:
    """By its time and by a revocation, and its sessions with it; only in its own tenant."""
    short, short_text = kernel.tokens.new("a", roles=["viewer"], expires_in_seconds=60)
    long, text = kernel.tokens.new("b", roles=["viewer"], tenant_id="acme")
    kernel.sessions.begin("b", roles=[], tenant_id="acme", method="token", token=long)
    clock.advance(61)
    assert kernel.tokens.find(short_text) is None
    assert kernel.tokens.by_ids([short.id, long.id]).keys() == {long.id}
    with pytest.raises(AutomateError) as refused:
        kernel.tokens.revoke(long.prefix, tenant_id="other")
    assert refused.value.code is ErrorCodes.NOT_FOUND
    assert kernel.tokens.find(text) is not None
    assert kernel.tokens.revoke(long.shown, tenant_id="acme")
    assert not kernel.tokens.revoke(long.prefix)
    assert kernel.tokens.find(text) is None
    assert kernel.tokens.by_ids([long.id]) == {}
    assert kernel.sessions.all() == []


def test_the_use_of_a_token_is_noted_once_a_minute(
    kernel: Kernel, storage: Any, clock: FakeClock
) -> None:
    _, text = kernel.tokens.new("ada", roles=["viewer"])
    used = []
    for passed in (0, 30, 31):
        clock.advance(passed)
        kernel.tokens.find(text)
        used.append(kernel.tokens.page().tokens[0].last_used_at)
    assert used[0] is not None
    assert used[0] == used[1] < used[2]  # type: ignore[operator]


def test_tokens_are_listed_by_tenant(kernel: Kernel) -> None:
    for number in range(3):
        kernel.tokens.new(f"t{number}", roles=["viewer"], tenant_id="acme" if number else None)
    assert [each.name for each in kernel.tokens.page(tenant_id="acme").tokens] == ["t2", "t1"]
    first = kernel.tokens.page(limit=2)
    assert [each.name for each in kernel.tokens.page(after=first.after).tokens] == ["t0"]


# -- sessions --------------------------------------------------------------------------------


def test_a_session_ends_when_it_is_not_used_and_in_any_case(
    kernel: Kernel, storage: Any, clock: FakeClock
) -> None:
    sessions = SessionStore(storage, idle_seconds=600, lifetime_seconds=2_000)
    secret = sessions.begin("ada", roles=["viewer"], tenant_id=None, method="token")
    for _ in range(3):
        clock.advance(590)
        found = sessions.find(secret)
        assert found is not None
        assert found.user_name == "ada"
    clock.advance(590)
    assert sessions.find(secret) is None  # its time is over, though it was used
    idle = sessions.begin("ada", roles=["viewer"], tenant_id=None, method="token")
    clock.advance(601)
    assert sessions.find(idle) is None
    assert sessions.all() == []
    assert sessions.purge() >= 1
    assert sessions.purge() == 0
    assert secret not in everything(storage, SESSION)


def test_a_session_is_ended_by_its_own_people_alone(kernel: Kernel) -> None:
    secret = kernel.sessions.begin("ada", roles=["viewer"], tenant_id="acme", method="token")
    session = kernel.sessions.find(secret)
    assert session is not None
    for whose in ({"user_name": "eve"}, {"user_name": "ada", "tenant_id": None},
                  {"tenant_id": "other"}):  # fmt: skip
        assert not kernel.sessions.end(session.id, **whose)
    for wrong in ("", secret[:-1], secret + "x", session.id, "\x00", "x" * 10_000):
        assert kernel.sessions.find(wrong) is None
    assert kernel.sessions.of("ada", None) == []
    assert kernel.sessions.end(session.id, user_name="ada", tenant_id="acme")
    assert kernel.sessions.find(secret) is None


def test_a_user_has_a_bounded_number_of_sessions(kernel: Kernel, clock: FakeClock) -> None:
    first = kernel.sessions.begin("ada", roles=[], tenant_id=None, method="token")
    for _ in range(50):
        clock.advance(1)
        kernel.sessions.begin("ada", roles=[], tenant_id=None, method="token")
    assert len(kernel.sessions.all()) == 50
    assert kernel.sessions.find(first) is None


# -- saved queries ---------------------------------------------------------------------------


def test_a_query_is_its_users_or_shared_within_the_tenant(kernel: Kernel) -> None:
    saved = kernel.saved_queries
    ada, eve, other = ({"user_name": n, "tenant_id": t} for n, t in
                       (("ada", "acme"), ("eve", "acme"), ("ada", "other")))  # fmt: skip
    own = saved.save("mine", "executions", "status=FAILED", **ada)
    shared = saved.save("ours", "executions", "status=RUNNING", shared=True, **ada)
    saved.save("elsewhere", "outbox", "", **ada)

    def names(**who: Any) -> list[str]:
        return [each.name for each in saved.find("executions", **who)]

    assert names(**ada) == ["mine", "ours"]
    assert names(**eve) == ["ours"]
    assert names(**other) == names(user_name="ada") == []
    assert saved.save("mine", "executions", "workflow=order", **ada) == own
    assert [each.query for each in saved.find("executions", **ada)][0] == "workflow=order"
    assert not saved.delete(shared, **eve)
    assert saved.delete(shared, **ada)
    assert names(**eve) == []


def test_saved_queries_are_bounded(kernel: Kernel) -> None:
    for number in range(100):
        kernel.saved_queries.save(f"q{number}", "outbox", "", user_name="ada")
    for name, query in (("one more", ""), ("q1", "x" * 3_000), ("q1", "\x00"), ("", "")):
        with pytest.raises(AutomateError):
            kernel.saved_queries.save(name, "outbox", query, user_name="ada")
    assert kernel.saved_queries.save("q1", "outbox", "id=1", user_name="ada")


# -- the audit trail -------------------------------------------------------------------------


def test_entries_are_found_by_who_what_and_when(
    kernel: Kernel, storage: Any, clock: FakeClock
) -> None:
    trail = kernel.audit
    for number in range(6):
        trail.write(
            "cancel" if number % 2 else "resume", actor="ada" if number < 3 else "eve",
            model="execution", object_id=f"id-{number}", tenant_id="acme" if number < 4 else None,
        )  # fmt: skip
        clock.advance(10)

    def ids(**given: Any) -> list[str | None]:
        return [each.object_id for each in trail.page(**given).records]

    assert ids() == [f"id-{number}" for number in (5, 4, 3, 2, 1, 0)]
    assert ids(actor="ada") == ["id-2", "id-1", "id-0"]
    assert ids(tenant_id="acme", action="cancel") == ["id-3", "id-1"]
    assert ids(tenant_id="other", object_id="id-1") == []
    assert ids(object_id="id-4", model="execution") == ids(object_id="id-4") == ["id-4"]
    assert ids(model="item") == ids(outcome="failed") == []
    moment = trail.page(object_id="id-2").records[0].created_at
    assert ids(created_after=moment, created_before=moment + timedelta(seconds=15)) == [
        "id-3", "id-2",
    ]  # fmt: skip
    first = trail.page(actor="ada", limit=2)
    assert [each.object_id for each in trail.page(actor="ada", after=first.after).records] == [
        "id-0"
    ]
    with pytest.raises(AutomateError):
        trail.page(actor="eve", tenant_id="acme", after=first.after)
    with pytest.raises(TypeError, match="did you mean"):
        trail.page(actors="ada")  # type: ignore[call-arg]


def test_an_entry_holds_no_secret_and_never_fails_for_its_texts(
    kernel: Kernel, storage: Any
) -> None:
    secret = kernel.secrets.get("KEY")
    entry = kernel.audit.write(
        "re\x00sume", actor="\ud800" + "x" * 500, model="m" * 500, object_id=f"of {secret}",
        object_repr=secret, details={"why": [secret, "\x00", {"\ud800": datetime.now(timezone.utc)}],
                                     "long": "x" * 5_000},
    )  # fmt: skip
    found = kernel.audit.get(entry)
    assert found is not None
    assert secret not in everything(storage, AUDIT)
    assert len(found.actor) == 200
    assert len(found.details["long"]) == 1_000


def test_what_was_asked_is_concluded_once(kernel: Kernel) -> None:
    entry = kernel.audit.write("cancel", actor="ada", model="execution", outcome="asked")
    kernel.audit.conclude(entry, "refused", details={"status": 404})
    kernel.audit.conclude(entry, "done")
    found = kernel.audit.get(entry)
    assert found is not None
    assert (found.outcome, found.details) == ("refused", {"status": 404})
    assert kernel.audit.get("no id") is None


def test_an_entry_that_cant_be_written_is_an_error() -> None:
    storage = MemoryStorage()
    kernel = Kernel(storage)
    with storage.begin() as rows:
        rows.run("DROP TABLE automate_audit", (), fetch=False)
    with pytest.raises(StorageError, match="the audit trail can't be written"):
        kernel.audit.write("cancel", actor="ada", model="execution")


def test_upkeep_deletes_what_was_kept_for_its_time(storage: Any, clock: FakeClock) -> None:
    """The trail for a year unless another time is given, sessions when they have ended."""
    kernel, ever = Kernel(storage), Kernel(storage, audit_retention_seconds=None)
    kernel.audit.write("cancel", actor="ada", model="execution")
    kernel.sessions.begin("ada", roles=[], tenant_id=None, method="token")
    for days, swept, left in ((364, kernel, 1), (2, ever, 1), (0, kernel, 0)):
        clock.advance(days * 86_400.0)
        tasks = {each.name: each for each in swept._upkeep(None, None)}
        tasks["audit trail and sessions"].run()
        assert len(kernel.audit.page().records) == left
    assert everything(storage, SESSION) == "[[]]"
    with pytest.raises(AutomateError, match="audit_retention_seconds"):
        Kernel(storage, audit_retention_seconds=-1)
