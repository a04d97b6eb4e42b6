"""Outputs of the actions: the fields that steps use, by GitHub's own names."""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict


class _GitHubObject(BaseModel):
    model_config: ClassVar[ConfigDict] = ConfigDict(extra="ignore", use_attribute_docstrings=True)


class User(_GitHubObject):
    """A person, an organization or an App."""

    login: str
    """The name by which GitHub knows it."""


class Label(_GitHubObject):
    """A label."""

    name: str
    """The name."""


class Issue(_GitHubObject):
    """An issue, or a pull request as an issue."""

    number: int
    """The number in its repository."""
    title: str
    """The title."""
    body: str | None = None
    """The text, in Markdown."""
    state: str
    """``open`` or ``closed``."""
    html_url: str
    """The page for people."""
    user: User | None = None
    """The author; None if the account is gone."""
    labels: list[Label | str] = []
    """The labels."""
    assignees: list[User] | None = None
    """The people who see to it."""
    comments: int = 0
    """The number of comments."""
    created_at: str
    """The time, in ISO 8601."""
    updated_at: str | None = None
    """The time of the last change."""
    closed_at: str | None = None
    """The time at which it was closed."""
    pull_request: dict[str, Any] | None = None
    """There only if it is a pull request."""


class Comment(_GitHubObject):
    """A comment on an issue or a pull request."""

    id: int
    """The number."""
    body: str | None = None
    """The text, in Markdown."""
    html_url: str
    """The page for people."""
    user: User | None = None
    """The author."""
    created_at: str
    """The time, in ISO 8601."""


class Team(_GitHubObject):
    """A team of an organization."""

    slug: str
    """The name by which GitHub knows it."""


class Branch(_GitHubObject):
    """A branch."""

    ref: str
    """The name."""
    sha: str
    """The newest commit."""


class PullRequest(_GitHubObject):
    """A pull request."""

    number: int
    """The number in its repository."""
    title: str
    """The title."""
    body: str | None = None
    """The description, in Markdown."""
    state: str
    """``open`` or ``closed``."""
    draft: bool | None = None
    """True while it isn't ready."""
    html_url: str
    """The page for people."""
    user: User | None = None
    """The author."""
    labels: list[Label] = []
    """The labels."""
    requested_reviewers: list[User] | None = None
    """The people who are asked for a review and haven't given it."""
    requested_teams: list[Team] | None = None
    """The teams that are asked for a review and haven't given it."""
    head: Branch
    """The branch with the changes."""
    base: Branch
    """The branch that they go to."""
    merged: bool | None = None
    """True once it was merged; unknown in lists."""
    mergeable: bool | None = None
    """True if it can be merged; unknown in lists, and until GitHub has tried."""
    merge_commit_sha: str | None = None
    """The commit of the merge."""
    created_at: str
    """The time, in ISO 8601."""
    merged_at: str | None = None
    """The time at which it was merged."""


class ChangedFile(_GitHubObject):
    """A file that a pull request changes."""

    filename: str
    """The path."""
    status: str
    """``added``, ``modified``, ``removed``, ``renamed`` and others."""
    additions: int
    """Lines that are new."""
    deletions: int
    """Lines that are gone."""
    patch: str | None = None
    """The difference; missing where it is large or not text."""
    previous_filename: str | None = None
    """The path before it was renamed."""


class Merge(_GitHubObject):
    """A pull request that is merged."""

    merged: bool
    """True."""
    sha: str | None
    """The commit of the merge."""
    message: str = ""
    """GitHub's words."""


class CommitStatus(_GitHubObject):
    """A status of a commit."""

    id: int
    """The number."""
    state: str
    """``error``, ``failure``, ``pending`` or ``success``."""
    context: str
    """The name, by which a later status replaces it."""


class CheckRun(_GitHubObject):
    """A check of a commit."""

    id: int
    """The number."""
    name: str
    """The name."""
    status: str
    """``queued``, ``in_progress`` or ``completed``."""
    conclusion: str | None = None
    """The result, once it is completed."""
    html_url: str | None = None
    """The page for people."""


class WorkflowRun(_GitHubObject):
    """A run of a workflow of GitHub Actions."""

    id: int
    """The number."""
    name: str | None = None
    """The workflow's name."""
    path: str | None = None
    """The workflow's file."""
    run_number: int
    """The number among the workflow's runs."""
    run_attempt: int | None = None
    """1, and more if it was run again."""
    event: str
    """The event that started it: ``push``, ``workflow_dispatch`` and others."""
    status: str | None
    """``queued``, ``in_progress``, ``completed`` and others."""
    conclusion: str | None
    """The result, once it is completed."""
    head_branch: str | None
    """The branch that it runs on."""
    head_sha: str
    """The commit that it runs on."""
    html_url: str
    """The page for people."""
    created_at: str
    """The time, in ISO 8601."""
    updated_at: str | None = None
    """The time of the last change."""


class File(_GitHubObject):
    """A file of a repository. Either *text* or *base64* is there."""

    path: str
    """The path."""
    sha: str
    """The SHA of the content."""
    size: int
    """The bytes."""
    text: str | None = None
    """The content, if it is text in UTF-8."""
    base64: str | None = None
    """The content, if it is something else."""


class WrittenFile(_GitHubObject):
    """A file that is written."""

    path: str
    """The path."""
    sha: str
    """The SHA of the content, to give to the next change."""
    commit: str | None = None
    """The commit that wrote it; None if the file had this content before."""


class Release(_GitHubObject):
    """A release."""

    id: int
    """The number."""
    tag_name: str
    """The tag."""
    name: str | None = None
    """The title."""
    draft: bool
    """True until it is published."""
    prerelease: bool
    """True if it isn't ready for production."""
    html_url: str
    """The page for people."""
