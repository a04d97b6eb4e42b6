"""Every action against Prism, which checks each request by GitHub's own document."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from automate_github import GitHubConnector
from automate_kernel import AutomateError, Kernel
from github_support import SECRETS

SHA = "a" * 40
CALLS: dict[str, dict[str, Any]] = {
    "create_issue": {"title": "Broken", "body": "é", "labels": ["bug"], "assignees": ["ada"]},
    "get_issue": {"number": 1},
    "list_issues": {"state": "all", "labels": ["a", "b"], "since": "2026-01-01T00:00:00Z"},
    "update_issue": {"number": 1, "state": "closed", "labels": []},
    "add_comment": {"number": 1, "body": "Thank you"},
    "add_labels": {"number": 1, "labels": ["bug", "good first issue"]},
    "search_issues": {"query": "repo:octo/shop is:open é"},
    "get_pull_request": {"number": 1},
    "list_pull_requests": {"base": "main", "head": "octo:fast"},
    "list_pull_request_files": {"number": 1},
    "merge_pull_request": {"number": 1, "sha": SHA, "method": "squash", "title": "Faster"},
    "create_pull_request": {"title": "Faster", "head": "fast", "base": "main", "draft": True},
    "request_reviewers": {"number": 1, "reviewers": ["ada"], "teams": ["core"]},
    "create_branch": {"branch": "fix/1", "source": "main"},
    "list_workflow_runs": {"workflow": "ci.yml", "branch": "main", "status": "failure"},
    "write_file": {"path": "b.txt", "message": "Say é", "text": "é", "sha": SHA, "branch": "x"},
    "set_commit_status": {"sha": SHA, "state": "success", "target_url": "https://ci.example/1"},
    "create_check_run": {"sha": SHA, "name": "lint", "conclusion": "failure", "summary": "no"},
    "dispatch_workflow": {"workflow": "ci.yml", "ref": "main", "inputs": {"level": "debug"}},
    "get_file": {"path": "README.md", "ref": "main"},
    "create_release": {"tag": "v1", "target": "main", "generate_notes": True},
}


@pytest.fixture(scope="module")
def kernel(prism: str, document: Path) -> Iterator[Kernel]:
    config = {
        "base_url": prism, "allow_private_networks": ["127.0.0.1"], "document": str(document),
    }  # fmt: skip
    with Kernel(
        plugins=[GitHubConnector], discover=False, config={"github": config}, secrets=SECRETS
    ) as kernel:
        yield kernel


def test_the_calls_are_all_actions() -> None:
    """None is forgotten here."""
    assert set(CALLS) == {spec.name for spec in GitHubConnector.actions()}


@pytest.mark.parametrize("name", CALLS)
def test_github_takes_every_request(kernel: Kernel, name: str) -> None:
    """And what it answers fits what the action returns."""
    place = {} if name == "search_issues" else {"repository": "octocat/Hello-World"}
    given = {**place, **CALLS[name]}
    if name == "get_file":
        # Of the document's alternatives Prism answers with the first: a folder.
        with pytest.raises(AutomateError, match="the path is no file's"):
            kernel.invoke(f"github.{name}", given)
        return
    output = kernel.invoke(f"github.{name}", given)
    assert (output is None) == (name == "dispatch_workflow")


REPEATED = ("create_pull_request", "request_reviewers", "create_branch", "write_file")


@pytest.mark.parametrize("name", REPEATED)
def test_github_takes_the_requests_of_another_attempt(kernel: Kernel, name: str) -> None:
    """With a key, where it looks first for what an earlier call has made."""
    given = {"repository": "octocat/Hello-World", **CALLS[name]}
    assert kernel.invoke(f"github.{name}", given, idempotency_key="k")


def test_prism_refuses_what_does_not_fit(prism: str) -> None:
    """Else the tests above would show nothing."""
    place = f"{prism}/repos/o/r"
    assert httpx.post(f"{place}/statuses/{SHA}", json={"state": "odd"}).status_code == 422
    assert httpx.put(f"{place}/pulls/1/merge", json={"sha": 7}).status_code == 422
    assert httpx.get(f"{place}/pulls?state=odd").status_code == 422


def test_the_documents_operations_are_actions_too(kernel: Kernel) -> None:
    """With the same credentials."""
    found = kernel.invoke("github.issues.list-for-repo", {"owner": "o", "repo": "r"})
    assert found[0]["number"]
    with pytest.raises(AutomateError, match="'title' is required"):
        kernel.invoke("github.issues.create", {"owner": "o", "repo": "r"})


def test_the_connection_test_asks_for_the_rate_limit(kernel: Kernel) -> None:
    assert "requests are left" in asyncio.run(kernel.connector("github").check())
