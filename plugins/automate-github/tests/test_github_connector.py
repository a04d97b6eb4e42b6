"""Actions: credentials of an App, rate limits, repeats, pages, files."""

from __future__ import annotations

import asyncio
import base64
import json
import time
from collections.abc import Callable
from typing import Any

import automate_github
import jwt
import pytest
from automate_github import GitHubConnector
from automate_kernel import AutomateError, Call, Connector, ErrorCodes, Kernel
from automate_testing.authoring.example import ExampleFile
from automate_kernel.operations.context import calling
from automate_kernel.operations.portal import Portal
from github_support import KEY, PUBLIC_KEY, SECRETS, TOKEN, pull_request, signed
from recording_service import Service

Made = Callable[..., Kernel]
ISSUE = {
    "number": 7, "title": "Broken", "state": "open", "created_at": "2026-01-01T00:00:00Z",
    "html_url": "https://github.com/o/r/issues/7",
}  # fmt: skip
COMMENT = {"id": 9, "html_url": "https://github.com/c/9", "created_at": "2026-01-01T00:00:00Z"}
PLACE = {"repository": "o/r", "number": 7}
APP = {"client_id": "Iv23", "installation_id": 5, "permissions": {"issues": "write"}}


@pytest.fixture
def kernel_with(service: Service, request: pytest.FixtureRequest) -> Made:
    def make(**config: Any) -> Kernel:
        kernel = Kernel(
            plugins=[GitHubConnector],
            discover=False,
            config={"github": {**service.config, **config}},
            secrets={**SECRETS, "GITHUB_APP_PRIVATE_KEY": KEY.replace("\n", "\\n")},
        )
        request.addfinalizer(kernel.close)
        return kernel

    return make


def token(value: str, seconds: float = 3_600) -> dict[str, Any]:
    until = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + seconds))
    return {"token": value, "expires_at": until}


def test_a_token_is_sent_with_the_version_of_the_api(kernel_with: Made, service: Service) -> None:
    service.answer(ISSUE)
    assert kernel_with().invoke("github.get_issue", PLACE)["title"] == "Broken"
    sent = service.last.headers
    assert sent["authorization"] == f"Bearer {TOKEN}"
    assert sent["x-github-api-version"] == "2022-11-28"


def test_an_app_signs_in_once_and_again_before_its_token_expires(
    kernel_with: Made, service: Service
) -> None:
    """The claim is one that GitHub takes; the second token comes as the first has 4 minutes left."""
    kernel = kernel_with(app=APP)
    for answer in (token("ghs_one", 240), ISSUE, token("ghs_two"), ISSUE, ISSUE):
        service.answer(answer)
    for _ in range(3):
        kernel.invoke("github.get_issue", PLACE)
    first = service.sent[0]
    assert first.target == "/app/installations/5/access_tokens"
    assert first.body == b'{"permissions":{"issues":"write"}}'
    claim = jwt.decode(
        first.headers["authorization"].removeprefix("Bearer "), PUBLIC_KEY, algorithms=["RS256"]
    )
    assert claim["iss"] == "Iv23"
    assert claim["exp"] - claim["iat"] <= 600
    used = [each.headers["authorization"] for each in service.sent if each.method == "GET"]
    assert used == ["Bearer ghs_one", "Bearer ghs_two", "Bearer ghs_two"]


def test_an_apps_token_that_is_refused_is_renewed_once(kernel_with: Made, service: Service) -> None:
    kernel = kernel_with(app=APP)
    service.answer(token("ghs_revoked"))
    service.answer({"message": "Bad credentials"}, 401)
    service.answer(token("ghs_new"))
    service.answer(ISSUE)
    assert kernel.invoke("github.get_issue", PLACE)["number"] == 7
    assert service.last.headers["authorization"] == "Bearer ghs_new"


def test_a_key_that_is_none_is_named_and_not_shown(service: Service) -> None:
    kernel = Kernel(
        plugins=[GitHubConnector],
        discover=False,
        config={"github": {**service.config, "app": APP}},
        secrets={"GITHUB_APP_PRIVATE_KEY": "-----BEGIN nothing-useful-----"},
    )
    with kernel, pytest.raises(AutomateError, match="is no private key") as caught:
        kernel.invoke("github.get_issue", PLACE)
    assert caught.value.code is ErrorCodes.UNAUTHENTICATED
    assert "nothing-useful" not in str(vars(caught.value))


@pytest.mark.parametrize(
    ("status", "headers", "words", "wait"),
    [
        (403, {"Retry-After": "42"}, "You have exceeded a secondary rate limit", 42),
        (429, {"Retry-After": "42"}, "Too many", 42),
        (403, {"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": "30"}, "API rate limit", 30),
        (403, {"X-RateLimit-Remaining": "9"}, "You have exceeded a secondary rate limit", 60),
        (403, {"X-RateLimit-Remaining": "9"}, "Resource not accessible by integration", None),
    ],
)
def test_rate_limits_are_waited_for(
    kernel_with: Made, service: Service, status: int, headers: Any, words: str, wait: float | None
) -> None:
    """The primary one by its reset, the secondary one by its header or a minute."""
    named = {name.replace("-", "_"): value for name, value in headers.items()}
    service.answer({"message": words}, status, **named)
    with pytest.raises(AutomateError) as caught:
        kernel_with().invoke("github.get_issue", PLACE)
    expected = ErrorCodes.RESOURCE_EXHAUSTED if wait else ErrorCodes.PERMISSION_DENIED
    assert (caught.value.code, caught.value.retry_after) == (expected, wait)
    assert caught.value.retryable is bool(wait)


def workflow(action: str, given: dict[str, Any]) -> dict[str, Any]:
    step = {
        "id": "do", "action": f"github.{action}", "input": given,
        "retry": {"attempts": 3, "delay": "0s"},
    }  # fmt: skip
    return {
        "name": "w",
        "trigger": {"type": "manual"},
        "steps": [step],
        "output": "{{ steps.do.output.html_url }}",
    }


MARKED = [
    ("create_issue", {"repository": "o/r", "title": "Broken"}, ISSUE),
    ("add_comment", {**PLACE, "body": "Thank you"}, COMMENT),
]


@pytest.mark.parametrize(("action", "given", "made"), MARKED)
def test_another_attempt_finds_what_the_first_has_made(
    kernel_with: Made, service: Service, action: str, given: Any, made: Any
) -> None:
    """GitHub had done it, and its answer was lost: there is no second one."""
    connector = kernel_with().connector("github")
    service.answer({"message": "sorry"}, 502)
    with pytest.raises(AutomateError) as caught:
        attempt(connector, 1, action, given)
    assert caught.value.retryable
    body = json.loads(service.last.body)["body"]
    assert "<!-- automate:" in body
    assert "key-of-the-step" not in body
    service.answers.clear()
    service.answer([{**made, "body": "of others"}, {**made, "body": body}])
    assert attempt(connector, 2, action, given)["body"] == body
    assert [each.method for each in service.sent] == ["POST", "GET"]


@pytest.mark.parametrize(("action", "given", "made"), MARKED)
def test_a_resumed_step_finds_what_was_made_before_it_failed(
    kernel_with: Made, service: Service, action: str, given: Any, made: Any
) -> None:
    """Its attempts begin anew, and its key doesn't."""
    kernel = kernel_with()
    kernel.add_workflow(workflow(action, given))
    service.answer({"message": "sorry"}, 502)
    service.answer({"message": "sorry"}, 503)
    service.answer({"message": "sorry"}, 503)
    one = kernel.run("w", {})
    assert one.status == "FAILED"
    body = json.loads(service.sent[0].body)["body"]
    service.answers.clear()
    service.answer([{**made, "body": body}])
    kernel.executions.resume(one.id)
    kernel.run_until_idle()
    assert kernel.executions.get(one.id).output == made["html_url"]  # type: ignore[union-attr]
    assert [each.method for each in service.sent] == ["POST", "GET", "GET", "GET"]


@pytest.mark.parametrize(("action", "given", "made"), MARKED)
def test_a_caller_who_calls_again_with_the_same_key_finds_it_too(
    kernel_with: Made, service: Service, action: str, given: Any, made: Any
) -> None:
    """The error lets it try again, and nobody counts the attempts of who is no workflow."""
    kernel = kernel_with()
    service.answer([])
    service.answer({"message": "sorry"}, 502)
    with pytest.raises(AutomateError) as caught:
        kernel.invoke(f"github.{action}", given, idempotency_key="k")
    assert caught.value.retryable
    body = json.loads(service.last.body)["body"]
    service.answers.clear()
    service.answer([{**made, "body": body}])
    assert kernel.invoke(f"github.{action}", given, idempotency_key="k")["body"] == body
    assert [each.method for each in service.sent] == ["GET", "POST", "GET"]


def attempt(connector: Connector, number: int, action: str, given: Any) -> Any:
    """Call *action* as the attempt *number* of a step."""
    portal = Portal()
    call = Call(
        f"github.{action}", execution_id="e", attempt=number, idempotency_key="key-of-the-step"
    )
    try:
        with calling(call):
            return portal.run(connector.call_action(action, given))
    finally:
        portal.close()


@pytest.mark.parametrize(("action", "given", "made"), MARKED)
def test_another_attempt_makes_what_the_first_has_not(
    kernel_with: Made, service: Service, action: str, given: Any, made: Any
) -> None:
    """In a workflow, where the step is tried again by itself."""
    kernel = kernel_with()
    kernel.add_workflow(workflow(action, given))
    service.answer({"message": "sorry"}, 502)
    service.answer([])
    service.answer(made)
    assert kernel.run("w", {}).output == made["html_url"]
    assert [each.method for each in service.sent] == ["POST", "GET", "POST"]
    assert service.sent[0].body == service.sent[2].body


def test_what_can_not_be_looked_for_is_not_tried_again(kernel_with: Made, service: Service) -> None:
    """Unless GitHub has surely done nothing."""
    start = {"repository": "o/r", "workflow": "ci.yml", "ref": "main"}
    kernel = kernel_with()
    service.answer({}, 502)
    with pytest.raises(AutomateError, match="unknown whether GitHub has done it") as caught:
        kernel.invoke("github.dispatch_workflow", start)
    assert not caught.value.retryable
    service.answers.clear()
    service.answer({}, 429)
    with pytest.raises(AutomateError) as caught:
        kernel.invoke("github.dispatch_workflow", start)
    assert caught.value.retryable


def test_a_pull_request_that_was_merged_before_is_a_success(
    kernel_with: Made, service: Service
) -> None:
    found = {
        **ISSUE, "state": "closed", "merged": True, "merge_commit_sha": "c" * 40,
        "head": {"ref": "fast", "sha": "b" * 40}, "base": {"ref": "main", "sha": "a" * 40},
    }  # fmt: skip
    kernel = kernel_with()
    for _ in range(2):
        service.answer({"message": "Pull Request is not mergeable"}, 405)
        service.answer(found)
    assert kernel.invoke("github.merge_pull_request", PLACE)["sha"] == "c" * 40
    with pytest.raises(AutomateError, match="not mergeable") as caught:
        kernel.invoke("github.merge_pull_request", {**PLACE, "sha": "d" * 40})
    assert not caught.value.retryable


@pytest.mark.parametrize(
    ("status", "words", "given", "seen", "retryable"),
    [
        (405, "Base branch was modified. Review and try the merge again.", {}, {}, True),
        (405, "Base branch was modified. Review and try the merge again.",
         {"sha": "b" * 40}, {}, True),
        (405, "Base branch was modified.", {}, {"state": "closed"}, False),
        (405, "Pull Request is not mergeable", {}, {"mergeable": None}, True),
        (405, "Pull Request is not mergeable", {}, {"mergeable": False}, False),
        (409, "Head branch was modified.", {}, {}, True),
        (409, "Head branch was modified.", {"sha": "b" * 40}, {}, False),
    ],
)  # fmt: skip
def test_a_merge_that_github_asks_to_try_again_is_tried_again(
    kernel_with: Made, service: Service, status: int, words: str, given: Any, seen: Any,
    retryable: bool,
) -> None:  # fmt: skip
    """Where others merge at the same time; a commit that nobody looked at stays out."""
    service.answer({"message": words}, status)
    service.answer({
        **ISSUE, "merged": False, "mergeable": True, "head": {"ref": "fast", "sha": "c" * 40},
        "base": {"ref": "main", "sha": "a" * 40}, **seen,
    })  # fmt: skip
    with pytest.raises(AutomateError, match=words) as caught:
        kernel_with().invoke("github.merge_pull_request", {**PLACE, **given})
    expected = ErrorCodes.ABORTED if retryable else ErrorCodes.FAILED_PRECONDITION
    assert (caught.value.code, caught.value.retryable) == (expected, retryable)


def test_the_limit_of_a_token_holds_for_all_that_have_it(
    kernel_with: Made, service: Service
) -> None:
    """Two kernels of one process; of an App too, whose token is another one in each."""
    kernels = kernel_with(), kernel_with(), kernel_with(app=APP), kernel_with(app=APP)
    service.answer({"message": "API rate limit"}, 403, Retry_After="42")
    with pytest.raises(AutomateError):
        kernels[0].invoke("github.get_issue", PLACE)
    with pytest.raises(AutomateError) as caught:
        kernels[1].invoke("github.get_issue", PLACE)
    assert caught.value.code is ErrorCodes.RESOURCE_EXHAUSTED
    assert len(service.sent) == 1
    service.answers.clear()
    service.answer(token("ghs_one"))
    service.answer({"message": "API rate limit"}, 403, Retry_After="42")
    with pytest.raises(AutomateError, match="API rate limit"):
        kernels[2].invoke("github.get_issue", PLACE)
    service.answers.clear()
    service.answer(token("ghs_two"))
    with pytest.raises(AutomateError, match="leaves no room"):
        kernels[3].invoke("github.get_issue", PLACE)
    assert [each.method for each in service.sent] == ["GET", "POST", "GET", "POST"]


def test_lists_come_in_pages(kernel_with: Made, service: Service) -> None:
    service.answer([ISSUE, ISSUE], Link=f'<{service.url}/repositories/1/issues?page=2>; rel="next"')
    service.answer([ISSUE])
    found = kernel_with().invoke("github.list_issues", {"repository": "o/r", "limit": 3})
    assert len(found) == 3
    assert service.last.target == "/repositories/1/issues?page=2"


def test_a_file_is_text_or_base64_and_its_path_stays_in_the_repository(
    kernel_with: Made, service: Service
) -> None:
    kernel = kernel_with()
    for content in ("é\n".encode(), b"\xff\xfe"):
        service.answer(
            {
                "type": "file", "path": "a b/c.txt", "sha": "s", "size": 3, "encoding": "base64",
                "content": base64.encodebytes(content).decode(),
            }
        )  # fmt: skip
    given = {"repository": "o/r", "path": "a b/c.txt", "ref": "main"}
    assert kernel.invoke("github.get_file", given)["text"] == "é\n"
    assert service.last.target == "/repos/o/r/contents/a%20b/c.txt?ref=main"
    found = kernel.invoke("github.get_file", given)
    assert (found["text"], found["base64"]) == (None, "//4=")
    for path in ("../../user", "a//b", "/a"):
        with pytest.raises(AutomateError, match="can't be"):
            kernel.invoke("github.get_file", {"repository": "o/r", "path": path})
    with pytest.raises(AutomateError):
        kernel.invoke("github.get_issue", {"repository": "../..", "number": 1})


def test_a_form_offers_the_repositories(kernel_with: Made, service: Service) -> None:
    service.answer([{"full_name": "o/r"}, {"full_name": "o/s"}])
    found = kernel_with().options("github.get_issue", "repository", search="S")
    assert [each.value for each in found] == ["o/s"]


def test_an_operation_of_the_document_asks_for_the_document(kernel_with: Made) -> None:
    with pytest.raises(AutomateError, match="set document in the config"):
        kernel_with().invoke("github.issues.create", {})
    with pytest.raises(AutomateError, match="create_issue"):
        kernel_with().invoke("github.creat_issue", {})


def test_a_token_in_the_place_of_a_key_is_refused(kernel_with: Made) -> None:
    for wrong in (
        {"token_secret": "ghp_abcdefghijkl"},
        {"app": {**APP, "private_key_secret": "-----BEGIN RSA PRIVATE KEY-----\nabcdefghijkl"}},
    ):
        with pytest.raises(AutomateError, match="where its key belongs") as caught:
            kernel_with(**wrong).invoke("github.get_issue", PLACE)
        assert "abcdefghijkl" not in str(caught.value)


def test_the_connection_test_says_what_is_left(kernel_with: Made, service: Service) -> None:
    service.answer({"rate": {"limit": 5000, "remaining": 4990}})
    found = asyncio.run(kernel_with().connector("github").check())
    assert found == "4,990 of 5,000 requests are left in this hour"


def test_the_connection_test_takes_a_server_without_limits(
    kernel_with: Made, service: Service
) -> None:
    """As GitHub Enterprise Server is set up at first. Any other 404 is a wrong address."""
    connector = kernel_with().connector("github")
    service.answer({"message": "Rate limiting is not enabled."}, 404)
    service.answer({"message": "Not Found"}, 404)
    assert asyncio.run(connector.check()) == "requests are not limited"
    with pytest.raises(AutomateError) as caught:
        asyncio.run(connector.check())
    assert caught.value.code is ErrorCodes.NOT_FOUND


def test_the_example_runs(kernel_with: Made, service: Service) -> None:
    """From a signed webhook to a comment and a status."""
    kernel = kernel_with()
    example = ExampleFile.of(automate_github.__name__)
    assert example is not None
    kernel.add_workflow(example.path)
    service.answer([{"filename": "a", "status": "added", "additions": 1, "deletions": 0}])
    service.answer(COMMENT)
    service.answer({"id": 1, "state": "pending", "context": "review"})
    kernel.receive_webhook("github", "events", *signed("pull_request", pull_request()))
    kernel.run_until_idle()
    assert [(each.method, each.target.partition("?")[0]) for each in service.sent] == [
        ("GET", "/repos/Octo/shop/pulls/12/files"),
        ("POST", "/repos/Octo/shop/issues/12/comments"),
        ("POST", f"/repos/Octo/shop/statuses/{'b' * 40}"),
    ]
    assert b"1 file(s) will be looked at" in service.sent[1].body
