"""Branches, files, pull requests and reviewers, against a GitHub that keeps what it is asked to."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from automate_github import GitHubConnector
from automate_kernel import AutomateError, Call, ErrorCodes, Kernel
from automate_kernel.operations.context import calling
from automate_kernel.operations.portal import Portal
from github_support import SECRETS
from own_github import OwnGitHub, blob
from recording_service import Service

OLD = blob(b"old\n")
PULL = {"repository": "o/r", "title": "Faster", "head": "fast", "base": "main", "body": "é"}
BRANCH = {"repository": "o/r", "branch": "fix/1", "source": "main"}
WRITE = {
    "repository": "o/r",
    "path": "README.md",
    "message": "Say more",
    "text": "new\n",
    "sha": OLD,
}
NEW = {"repository": "o/r", "path": "docs/a b.md", "message": "Begin", "text": "é"}
ASK = {"repository": "o/r", "number": 1, "reviewers": ["ada"], "teams": ["core"]}
CHANGES = [
    ("create_pull_request", PULL), ("create_branch", BRANCH), ("write_file", WRITE),
    ("write_file", NEW), ("request_reviewers", ASK),
]  # fmt: skip


@pytest.fixture
def kernel(own_github: OwnGitHub) -> Iterator[Kernel]:
    config = {"base_url": own_github.url, "allow_private_networks": ["127.0.0.1"]}
    with Kernel(
        plugins=[GitHubConnector], discover=False, config={"github": config}, secrets=SECRETS
    ) as kernel:
        yield kernel


@pytest.fixture
def attempt(kernel: Kernel) -> Iterator[Callable[[int, str, Any], Any]]:
    """Call an action as an attempt of the same step."""
    portal = Portal()

    def call(number: int, action: str, given: Any) -> Any:
        step = Call(f"github.{action}", execution_id="e", attempt=number, idempotency_key="k")
        with calling(step):
            return portal.run(kernel.connector("github").call_action(action, given))

    yield call
    portal.close()


def refused(kernel: Kernel, action: str, given: Any) -> AutomateError:
    with pytest.raises(AutomateError) as caught:
        kernel.invoke(f"github.{action}", given)
    return caught.value


def state(github: OwnGitHub) -> Any:
    """Return what a change that is made twice would change."""
    return len(github.commits), dict(github.branches), len(github.pulls), list(github.asked)


@pytest.mark.parametrize(("action", "given"), CHANGES)
def test_a_step_whose_answer_was_lost_makes_nothing_twice(
    kernel: Kernel, own_github: OwnGitHub, action: str, given: Any
) -> None:
    """GitHub had done it. The step is tried again by itself, and ends well."""
    if action == "request_reviewers":
        kernel.invoke("github.create_pull_request", PULL)
    before = state(own_github)
    step = {
        "id": "do", "action": f"github.{action}", "input": given,
        "retry": {"attempts": 3, "delay": "0s"},
    }  # fmt: skip
    kernel.add_workflow({"name": "w", "trigger": {"type": "manual"}, "steps": [step]})
    own_github.lost = 1
    assert kernel.run("w", {}).status == "COMPLETED"
    once = state(own_github)
    assert once != before
    assert own_github.lost == 0
    kernel.run("w", {})  # another execution is another change, or finds that it is made
    assert len(own_github.pulls) == once[2]
    assert own_github.branches == once[1]
    assert own_github.asked == once[3]


@pytest.mark.parametrize(("action", "given"), CHANGES)
def test_a_resumed_step_finds_what_was_made_before_it_failed(
    kernel: Kernel, own_github: OwnGitHub, action: str, given: Any
) -> None:
    """Its attempts begin anew, and its key doesn't."""
    if action == "request_reviewers":
        kernel.invoke("github.create_pull_request", PULL)
    step = {"id": "do", "action": f"github.{action}", "input": given}
    kernel.add_workflow({"name": "w", "trigger": {"type": "manual"}, "steps": [step]})
    own_github.lost = 1
    failed = kernel.run("w", {})
    assert failed.status == "FAILED"
    once = state(own_github)
    kernel.executions.resume(failed.id)
    kernel.run_until_idle()
    assert kernel.executions.get(failed.id).status == "COMPLETED"  # type: ignore[union-attr]
    assert state(own_github) == once


@pytest.mark.parametrize(("action", "given"), CHANGES)
def test_an_attempt_before_which_nothing_was_made_makes_it(
    kernel: Kernel, own_github: OwnGitHub, attempt: Any, action: str, given: Any
) -> None:
    """The worker died before the request."""
    if action == "request_reviewers":
        kernel.invoke("github.create_pull_request", PULL)
    before = state(own_github)
    attempt(2, action, given)
    assert state(own_github) != before
    after = state(own_github)
    attempt(3, action, given)
    assert state(own_github) == after


# -- pull requests -------------------------------------------------------------------------------


def test_a_pull_request_that_was_merged_meanwhile_is_found(
    own_github: OwnGitHub, attempt: Any
) -> None:
    """GitHub would take a second one for the same branches then."""
    attempt(1, "create_pull_request", PULL)
    own_github.pulls[0]["state"] = "closed"
    own_github.pulls[0]["base"] = {"ref": "other", "sha": "a" * 40}
    assert attempt(2, "create_pull_request", PULL)["number"] == 1
    assert len(own_github.pulls) == 1


def test_a_pull_request_of_somebody_else_is_not_taken_for_it(
    kernel: Kernel, own_github: OwnGitHub
) -> None:
    kernel.invoke("github.create_pull_request", PULL)
    error = refused(kernel, "create_pull_request", PULL)
    assert (error.code, error.retryable) == (ErrorCodes.ALREADY_EXISTS, False)
    assert "list_pull_requests" in str(error.hint)


# -- branches ------------------------------------------------------------------------------------


def test_a_branch_begins_at_the_default_branch_or_a_commit(
    kernel: Kernel, own_github: OwnGitHub
) -> None:
    first = own_github.branches["main"]
    newest = own_github.commit("main", "b", b"b")
    made = kernel.invoke("github.create_branch", {"repository": "o/r", "branch": "x"})
    assert made == {"ref": "x", "sha": newest}
    given = {"repository": "o/r", "branch": "refs/heads/y", "source": first}
    assert kernel.invoke("github.create_branch", given) == {"ref": "y", "sha": first}
    assert (own_github.branches["x"], own_github.branches["y"]) == (newest, first)


def test_a_branch_that_is_there_is_a_success_at_the_same_commit_alone(
    kernel: Kernel, own_github: OwnGitHub
) -> None:
    kernel.invoke("github.create_branch", BRANCH)
    assert kernel.invoke("github.create_branch", BRANCH)["ref"] == "fix/1"
    before = own_github.branches["fix/1"]
    own_github.commit("main", "b", b"b")
    error = refused(kernel, "create_branch", BRANCH)
    assert (error.code, error.retryable) == (ErrorCodes.ALREADY_EXISTS, False)
    assert before in str(error.hint)
    assert own_github.branches["fix/1"] == before


def test_another_attempt_finds_its_branch_though_the_source_moved_on(
    own_github: OwnGitHub, attempt: Any
) -> None:
    """A branch with commits of its own is somebody's work, and no success."""
    first = attempt(1, "create_branch", BRANCH)
    own_github.commit("main", "b", b"b")
    assert attempt(2, "create_branch", BRANCH) == first
    own_github.commit("fix/1", "c", b"c")
    with pytest.raises(AutomateError, match="already exists"):
        attempt(3, "create_branch", BRANCH)


def test_a_source_that_is_not_there_is_an_error_with_its_remedy(kernel: Kernel) -> None:
    for source in ("nowhere", "e" * 40):
        error = refused(kernel, "create_branch", {**BRANCH, "source": source})
        assert "branch, tag or commit" in str(error.hint)
        assert not error.retryable


# -- files ---------------------------------------------------------------------------------------


def test_a_file_is_made_and_replaced_as_text_or_bytes(
    kernel: Kernel, own_github: OwnGitHub
) -> None:
    made = kernel.invoke("github.write_file", NEW)
    assert made["commit"] == own_github.branches["main"]
    assert (
        made["sha"]
        == kernel.invoke("github.get_file", {"repository": "o/r", "path": NEW["path"]})["sha"]
    )
    odd = base64.encodebytes(b"\xff\x00" * 100).decode()
    given = {**NEW, "text": None, "base64": odd, "sha": made["sha"]}
    kernel.invoke("github.write_file", given)
    assert own_github.read("main", "docs/a b.md") == b"\xff\x00" * 100
    kernel.invoke("github.write_file", {**NEW, "path": "empty", "text": ""})
    assert own_github.read("main", "empty") == b""


@pytest.mark.parametrize(
    ("there", "given", "code", "remedy"),
    [
        (b"theirs", WRITE, ErrorCodes.FAILED_PRECONDITION, "get_file again"),
        (None, WRITE, ErrorCodes.FAILED_PRECONDITION, "leave sha out"),
        (b"theirs", {**WRITE, "sha": None}, ErrorCodes.ALREADY_EXISTS, "give its sha"),
    ],
)
def test_what_somebody_else_has_written_is_not_lost(
    kernel: Kernel, own_github: OwnGitHub, there: bytes | None, given: Any, code: Any, remedy: str
) -> None:
    own_github.commit("main", "README.md", there)
    error = refused(kernel, "write_file", given)
    assert (error.code, error.retryable) == (code, False)
    assert remedy in str(error.hint)
    assert own_github.read("main", "README.md") == there


@pytest.mark.parametrize("meanwhile", [b"theirs", b"old\n", None])
@pytest.mark.parametrize("given", [WRITE, NEW])
def test_another_attempt_leaves_a_later_change_as_it_is(
    own_github: OwnGitHub, attempt: Any, given: Any, meanwhile: bytes | None
) -> None:
    """Also where somebody has taken it back, and the SHA is again what it was."""
    first = attempt(1, "write_file", given)
    own_github.commit("main", given["path"], meanwhile)
    count = len(own_github.commits)
    assert attempt(2, "write_file", given) == first
    assert own_github.read("main", given["path"]) == meanwhile
    assert len(own_github.commits) == count


def test_a_caller_without_a_key_who_tries_again_writes_once(
    kernel: Kernel, own_github: OwnGitHub
) -> None:
    """The file has the content: that is a success, without a commit."""
    own_github.lost = 1
    assert refused(kernel, "write_file", WRITE).retryable
    count = len(own_github.commits)
    assert kernel.invoke("github.write_file", WRITE) == {
        "path": "README.md", "sha": blob(b"new\n"), "commit": None,
    }  # fmt: skip
    assert len(own_github.commits) == count


def test_the_first_file_of_an_empty_repository_is_written(
    own_github: OwnGitHub, attempt: Any, service: Service
) -> None:
    """It has no history to look into."""
    service.answer({"message": "Git Repository is empty."}, 409)
    service.answer({"commit": {"sha": "c" * 40}}, 201)
    with Kernel(
        plugins=[GitHubConnector], discover=False, config={"github": service.config},
        secrets=SECRETS,
    ) as kernel:  # fmt: skip
        made = kernel.invoke("github.write_file", NEW, idempotency_key="k")
        assert made["commit"] == "c" * 40
        service.answers.clear()
        service.answer({"message": "Git Repository is empty."}, 409)
        error = refused(kernel, "create_branch", BRANCH)
        assert "write_file" in str(error.hint)
        assert not error.retryable


@pytest.mark.parametrize(
    ("said", "retryable", "remedy"),
    [
        ("refs/heads/main is at aaa but expected bbb", True, ""),
        ("Repository rule violations found", False, "pull request"),
    ],
)
def test_a_conflict_of_the_branch_is_tried_again_and_a_rule_is_not(
    service: Service, said: str, retryable: bool, remedy: str
) -> None:
    """Another file was written at the same moment: this one is as it was."""
    service.answer({"message": said}, 409)
    service.answer({
        "type": "file", "path": "README.md", "sha": OLD, "size": 4, "encoding": "base64",
        "content": "b2xkCg==",
    })  # fmt: skip
    with Kernel(
        plugins=[GitHubConnector], discover=False, config={"github": service.config},
        secrets=SECRETS,
    ) as kernel:  # fmt: skip
        error = refused(kernel, "write_file", WRITE)
    assert error.retryable is retryable
    assert remedy in str(error.hint)


@pytest.mark.parametrize(
    ("content", "remedy"),
    [
        ({"text": "é" * (512 * 1024) + "x"}, "1,048,577 bytes"),
        ({"text": None, "base64": base64.b64encode(b"x" * (1024 * 1024 + 1)).decode()}, "bytes"),
        ({"text": None, "base64": "b2xk!"}, "base64"),
        ({"text": None}, "either text or base64"),
        ({"base64": "b2xk"}, "either text or base64"),
        ({"path": "../../user"}, "can't be"),
        ({"path": "/a"}, "can't be"),
    ],
)
def test_what_can_not_be_written_is_refused_before_any_request(
    kernel: Kernel, own_github: OwnGitHub, content: Any, remedy: str
) -> None:
    error = refused(kernel, "write_file", {**WRITE, **content})
    assert error.code is ErrorCodes.INVALID_ARGUMENT
    assert remedy in str(error)
    assert own_github.sent == []


# -- reviewers -----------------------------------------------------------------------------------


def test_who_is_asked_or_has_reviewed_is_not_asked_by_another_attempt(
    kernel: Kernel, own_github: OwnGitHub, attempt: Any
) -> None:
    """A second request would take an approval back. A new commit is another matter."""
    kernel.invoke("github.create_pull_request", PULL)
    attempt(1, "request_reviewers", ASK)
    own_github.review("ada")
    found = attempt(2, "request_reviewers", {**ASK, "reviewers": ["Ada"]})
    assert found["requested_teams"] == [{"slug": "core"}]
    assert own_github.asked == [["ada", "core"]]
    attempt(2, "request_reviewers", {**ASK, "reviewers": ["ada", "bob"]})
    assert own_github.asked[1:] == [["bob"]]
    own_github.pulls[0]["head"]["sha"] = "d" * 40
    attempt(2, "request_reviewers", ASK)
    assert own_github.asked[2:] == [["ada"]]


def test_a_request_for_nobody_is_refused(kernel: Kernel, own_github: OwnGitHub) -> None:
    error = refused(kernel, "request_reviewers", {"repository": "o/r", "number": 1})
    assert "give reviewers, teams or both" in str(error.hint)
    assert own_github.sent == []


# -- runs ----------------------------------------------------------------------------------------


def test_runs_come_in_pages_by_workflow_branch_and_status(service: Service) -> None:
    run = {
        "id": 1, "run_number": 2, "event": "push", "status": "completed", "conclusion": "failure",
        "head_branch": "main", "head_sha": "a" * 40, "created_at": "2026-01-01T00:00:00Z",
        "html_url": "https://github.com/o/r/actions/runs/1",
    }  # fmt: skip
    more = f'<{service.url}/repositories/1/actions/runs?page=2>; rel="next"'
    service.answer({"total_count": 3, "workflow_runs": [run, run]}, Link=more)
    service.answer({"total_count": 3, "workflow_runs": [run]})
    given = {
        "repository": "o/r", "workflow": "ci.yml", "branch": "release/1", "status": "failure",
    }  # fmt: skip
    with Kernel(
        plugins=[GitHubConnector], discover=False, config={"github": service.config},
        secrets=SECRETS,
    ) as kernel:  # fmt: skip
        found = kernel.invoke("github.list_workflow_runs", given)
        assert [each["conclusion"] for each in found] == ["failure"] * 3
        asked, _, query = service.sent[0].target.partition("?")
        assert asked == "/repos/o/r/actions/workflows/ci.yml/runs"
        assert query == "branch=release%2F1&status=failure&per_page=100"
        kernel.invoke("github.list_workflow_runs", {"repository": "o/r", "limit": 1})
        assert service.last.target == "/repos/o/r/actions/runs?per_page=1"
        refused(kernel, "list_workflow_runs", {"repository": "o/r", "status": "odd"})
