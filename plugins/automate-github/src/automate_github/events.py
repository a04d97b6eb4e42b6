"""
Webhooks' payloads: the fields that workflows use, by GitHub's own names.

A payload has many more fields than these, and they all reach the workflow. Only what GitHub sends
each time is required.
"""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict


class _PayloadPart(BaseModel):
    model_config: ClassVar[ConfigDict] = ConfigDict(extra="allow", use_attribute_docstrings=True)


class Actor(_PayloadPart):
    """A person, an organization or an App."""

    login: str
    """The name by which GitHub knows it."""
    id: int
    """The number, which stays when the login changes."""
    type: str | None = None
    """``User``, ``Organization`` or ``Bot``."""


class RepositoryPart(_PayloadPart):
    """The repository that an event happened in."""

    id: int
    """The number, which stays when the repository is renamed or moves."""
    name: str
    """The name without the owner."""
    full_name: str
    """The name as ``owner/name``, which the actions take."""
    private: bool = False
    """True if not everybody can see it."""
    default_branch: str | None = None
    """The branch that pull requests go to."""


class InstallationPart(_PayloadPart):
    """The installation of the App that the webhook was sent to."""

    id: int
    """The number."""


class WebhookEvent(_PayloadPart):
    """Any event. The header ``X-GitHub-Event`` says which."""

    action: str | None = None
    """The change, for events that have several: ``opened``."""
    repository: RepositoryPart | None = None
    """The repository; an organization's own events have none."""
    sender: Actor | None = None
    """The account that caused the event."""
    installation: InstallationPart | None = None
    """The installation, if an App gets the webhook."""


class _RepositoryEvent(WebhookEvent):
    repository: RepositoryPart
    """The repository."""


class _ActionEvent(_RepositoryEvent):
    action: str
    """The change: ``opened``."""


class CommitAuthor(_PayloadPart):
    """The author of a commit, as the commit says."""

    name: str | None = None
    """The name."""
    email: str | None = None
    """The address."""
    username: str | None = None
    """The login, if GitHub knows it."""


class Commit(_PayloadPart):
    """A commit that was pushed."""

    id: str
    """The SHA."""
    message: str
    """The message."""
    author: CommitAuthor | None = None
    """The author."""
    added: list[str] = []
    """Files that are new."""
    modified: list[str] = []
    """Files that have changed."""
    removed: list[str] = []
    """Files that are gone."""


class PushEvent(_RepositoryEvent):
    """Commits or a tag were pushed, or a branch was made or deleted."""

    ref: str
    """The full name: ``refs/heads/main``, ``refs/tags/v1``."""
    before: str
    """The SHA before the push; zeros for a new branch."""
    after: str
    """The SHA after the push; zeros for a deleted branch."""
    created: bool = False
    """True for a new branch or tag."""
    deleted: bool = False
    """True for one that was deleted."""
    forced: bool = False
    """True if history was rewritten."""
    commits: list[Commit] = []
    """The commits, 2,048 at most."""
    head_commit: Commit | None = None
    """The newest commit."""


class LabelPart(_PayloadPart):
    """A label."""

    name: str
    """The name."""


class BranchPart(_PayloadPart):
    """A branch of a pull request."""

    ref: str
    """The name."""
    sha: str
    """The newest commit."""


class PullRequestPart(_PayloadPart):
    """A pull request."""

    number: int
    """The number in its repository."""
    title: str
    """The title."""
    body: str | None = None
    """The description."""
    state: str
    """``open`` or ``closed``."""
    draft: bool | None = None
    """True while it isn't ready."""
    merged: bool | None = None
    """True once it was merged."""
    user: Actor | None = None
    """The author; None if the account is gone."""
    head: BranchPart
    """The branch with the changes."""
    base: BranchPart
    """The branch that they go to."""
    html_url: str
    """The page for people."""


class PullRequestEvent(_ActionEvent):
    """A pull request was opened, changed, labelled, closed."""

    number: int
    """The number of the pull request."""
    pull_request: PullRequestPart
    """The pull request."""


class ReviewPart(_PayloadPart):
    """A review."""

    id: int
    """The number."""
    state: str
    """``approved``, ``changes_requested``, ``commented``, ``dismissed``."""
    body: str | None = None
    """The words."""
    user: Actor | None = None
    """The reviewer."""


class PullRequestReviewEvent(_ActionEvent):
    """A review was submitted, edited or dismissed."""

    review: ReviewPart
    """The review."""
    pull_request: PullRequestPart
    """The pull request."""


class IssuePart(_PayloadPart):
    """An issue; or a pull request, whose comments are an issue's."""

    number: int
    """The number in its repository."""
    title: str
    """The title."""
    body: str | None = None
    """The text."""
    state: str | None = None
    """``open`` or ``closed``."""
    user: Actor | None = None
    """The author; None if the account is gone."""
    labels: list[LabelPart] = []
    """The labels."""
    html_url: str
    """The page for people."""
    pull_request: dict[str, Any] | None = None
    """There only if it is a pull request."""


class IssuesEvent(_ActionEvent):
    """An issue was opened, edited, labelled, assigned, closed."""

    issue: IssuePart
    """The issue."""
    label: LabelPart | None = None
    """The label, if it is about one."""


class CommentPart(_PayloadPart):
    """A comment."""

    id: int
    """The number."""
    body: str | None = None
    """The text."""
    user: Actor | None = None
    """The author."""
    html_url: str
    """The page for people."""


class IssueCommentEvent(_ActionEvent):
    """A comment on an issue or a pull request was made, edited or deleted."""

    issue: IssuePart
    """The issue or pull request."""
    comment: CommentPart
    """The comment."""


class ReleasePart(_PayloadPart):
    """A release."""

    id: int
    """The number."""
    tag_name: str
    """The tag."""
    name: str | None = None
    """The title."""
    body: str | None = None
    """The notes."""
    draft: bool = False
    """True until it is published."""
    prerelease: bool = False
    """True if it isn't ready for production."""
    html_url: str
    """The page for people."""


class ReleaseEvent(_ActionEvent):
    """A release was made, published, edited or deleted."""

    release: ReleasePart
    """The release."""


class WorkflowRunPart(_PayloadPart):
    """A run of a workflow of GitHub Actions."""

    id: int
    """The number."""
    name: str | None = None
    """The workflow's name."""
    head_branch: str | None = None
    """The branch."""
    head_sha: str
    """The commit."""
    event: str
    """The event that it was started by."""
    status: str
    """``queued``, ``in_progress``, ``completed``."""
    conclusion: str | None = None
    """``success``, ``failure``, ``cancelled`` and others, once it is completed."""
    html_url: str
    """The page for people."""


class WorkflowRunEvent(_ActionEvent):
    """A run of a workflow was requested, is in progress or completed."""

    workflow_run: WorkflowRunPart
    """The run."""


class CheckRunPart(_PayloadPart):
    """A check of a commit."""

    id: int
    """The number."""
    name: str
    """The name."""
    head_sha: str
    """The commit."""
    status: str
    """``queued``, ``in_progress``, ``completed``."""
    conclusion: str | None = None
    """``success``, ``failure`` and others, once it is completed."""
    html_url: str | None = None
    """The page for people."""


class CheckRunEvent(_ActionEvent):
    """A check was made, completed, asked for again."""

    check_run: CheckRunPart
    """The check."""


class RefEvent(_RepositoryEvent):
    """A branch or a tag was made or deleted."""

    ref: str
    """The name."""
    ref_type: str
    """``branch`` or ``tag``."""


EVENTS: dict[str, type[WebhookEvent]] = {
    "push": PushEvent,
    "pull_request": PullRequestEvent,
    "pull_request_review": PullRequestReviewEvent,
    "issues": IssuesEvent,
    "issue_comment": IssueCommentEvent,
    "release": ReleaseEvent,
    "workflow_run": WorkflowRunEvent,
    "check_run": CheckRunEvent,
    "create": RefEvent,
    "delete": RefEvent,
}
"""The payloads of the events that have a trigger of their own."""
