"""The kernel's contracts, and GitHub when it misbehaves."""

from __future__ import annotations

from typing import Any, ClassVar

from automate_github import GitHubConnector
from automate_testing import ConnectorContract, HostileAnswersContract
from github_support import KEY

ISSUE = {
    "number": 7, "title": "Broken", "state": "open", "created_at": "2026-01-01T00:00:00Z",
    "html_url": "https://github.com/o/r/issues/7",
}  # fmt: skip
PLACE = {"repository": "o/r", "number": 7}


class TestGitHubConnector(ConnectorContract):
    plugin_class = GitHubConnector
    config: ClassVar[Any] = {"timeout_seconds": 2}


class TestAgainstHostileAnswers(HostileAnswersContract):
    plugin, operation, example_input = GitHubConnector, "get_issue", PLACE
    answer: ClassVar[Any] = ISSUE

    def config(self, url: str) -> dict[str, Any]:
        here = {"base_url": url, "allow_private_networks": ["127.0.0.1"]}
        return {**here, "timeout_seconds": self.timeout_seconds}


class TestLabelsAgainstHostileAnswers(TestAgainstHostileAnswers):
    """A request that changes something, and may be repeated."""

    operation, example_input = "add_labels", {**PLACE, "labels": ["bug"]}
    answer: ClassVar[Any] = [{"name": "bug"}]


class TestWritesAgainstHostileAnswers(TestAgainstHostileAnswers):
    """A request that is repeated because another attempt sees what the first has done."""

    operation: ClassVar[Any] = "write_file"
    example_input: ClassVar[Any] = {
        "repository": "o/r", "path": "a.txt", "message": "Begin", "text": "a",
    }  # fmt: skip
    answer: ClassVar[Any] = {"commit": {"sha": "c" * 40}}


class TestRunsAgainstHostileAnswers(TestAgainstHostileAnswers):
    """A list in an object."""

    operation, example_input = "list_workflow_runs", {"repository": "o/r"}
    answer: ClassVar[Any] = {"workflow_runs": []}


class TestAppAgainstHostileAnswers(TestAgainstHostileAnswers):
    """GitHub is asked for a token first; the secret is the App's private key."""

    secret = KEY

    def answer_to(self, method: str, path: str) -> Any:
        if path.endswith("/access_tokens"):
            return {"token": "ghs_short-lived", "expires_at": "2999-01-01T00:00:00Z"}
        return ISSUE

    def config(self, url: str) -> dict[str, Any]:
        return {**super().config(url), "app": {"client_id": "Iv1", "installation_id": 5}}
