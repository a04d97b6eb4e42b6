"""The connector ``github``: actions, webhooks, and the operations of GitHub's document."""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypedDict, TypeVar
from urllib.parse import parse_qs

from pydantic import BaseModel, Field

from automate_github.answers import (
    Branch,
    ChangedFile,
    CheckRun,
    Comment,
    CommitStatus,
    File,
    Issue,
    Label,
    Merge,
    PullRequest,
    Release,
    WorkflowRun,
    WrittenFile,
)
from automate_github.app import AppAuth
from automate_github.config import GitHubConfig
from automate_github.contents import (
    RepositoryContent,
    blob_sha,
    content_of,
    contents_at,
    explain_refused_write,
    file_of,
)
from automate_github.events import EVENTS, WebhookEvent
from automate_github.filters import refusal
from automate_github.marks import mark_of, marked, trailer_of
from automate_http import Auth, BearerAuth, NextLink, ServiceClient
from automate_http.failures import forbid_repeat
from automate_kernel import Call, FieldOption
from automate_kernel.base.errors import AutomateError, ErrorCodes
from automate_kernel.operations.spec import OperationSpec
from automate_kernel.plugins.connectors import (
    ActionSpec,
    Connector,
    ConnectorContext,
    TriggerSpec,
    action,
    options,
)
from automate_kernel.triggers.webhooks import GitHubSignature, Ignored, WebhookHeaders
from automate_openapi import OpenApiConnector

T = TypeVar("T")

_SECONDARY_WAIT_SECONDS = 60.0
_ANY = "events"
_NOT_FOUND, _NOT_ALLOWED, _CONFLICT, _UNPROCESSABLE = 404, 405, 409, 422
_COMMIT = re.compile(r"[0-9a-f]{40}")
_EXISTS = "already exists"
_MOVED = "base branch was modified"

Repository = Annotated[
    str,
    Field(
        pattern=r"^[A-Za-z0-9_.-]+/[A-Za-z0-9_.-]+$",
        description="The repository: owner/name.",
        examples=["octo-org/shop"],
    ),
]
Number = Annotated[int, Field(ge=1, description="The number in the repository.")]
Limit = Annotated[int, Field(ge=1, le=10_000, description="The most items to return.")]
Body = Annotated[str, Field(max_length=65_000, description="The text, in Markdown.")]
Labels = Annotated[list[str], Field(max_length=100, description="The names of labels.")]
Sha = Annotated[str, Field(pattern=r"^[0-9a-f]{40,64}$", description="The SHA of a commit.")]
FilePath = Annotated[str, Field(min_length=1, description="The path, without a slash first.")]
BranchName = Annotated[
    str, Field(min_length=1, max_length=255, description="The name of the branch.")
]
RunStatus = Literal[
    "completed", "action_required", "cancelled", "failure", "neutral", "skipped", "stale",
    "success", "timed_out", "in_progress", "queued", "requested", "waiting", "pending",
]  # fmt: skip
State = Annotated[Literal["open", "closed", "all"], Field(description="The state.")]


class _Place(TypedDict):
    owner: str
    repo: str


class _CommitSha(BaseModel):
    sha: str


class _FileCommit(BaseModel):
    commit: _CommitSha


class _CommitText(BaseModel):
    message: str


class _ListedCommit(BaseModel):
    sha: str
    commit: _CommitText


class _GitReference(BaseModel):
    object: _CommitSha


class _CommitComparison(BaseModel):
    status: str


class _Reviewer(BaseModel):
    login: str


class _Review(BaseModel):
    user: _Reviewer | None
    commit_id: str | None = None


class _HourlyLimit(BaseModel):
    limit: int
    remaining: int


class _RateLimits(BaseModel):
    rate: _HourlyLimit


class GitHubConnector(Connector):
    """
    Issues, pull requests, checks, files and releases of GitHub, and the webhooks that it sends.

    With `GitHubConfig.document` every operation of GitHub's API is an action too:
    ``github.issues.create``.
    """

    key = "github"
    display_name = "GitHub"

    def __init__(
        self, config: dict[str, Any] | None = None, *, ctx: ConnectorContext | None = None
    ) -> None:
        super().__init__(config, ctx=ctx)
        settings: GitHubConfig = self.parse_config(config)
        self._settings = settings
        bounds: dict[str, Any] = {
            "base_url": settings.base_url,
            "headers": {
                "accept": "application/vnd.github+json, application/json;q=0.9",
                "x-github-api-version": settings.api_version,
            },
            **settings.model_dump(
                include={
                    "allow_private_networks", "allow_plain_http", "ca_file", "timeout_seconds",
                    "max_response_bytes",
                }
            ),
        }  # fmt: skip
        self._app = AppAuth(settings.app, ctx=self.ctx, options=bounds) if settings.app else None
        auth: Auth = self._app or BearerAuth(settings.token_secret)
        self.client = ServiceClient(ctx=self.ctx, auth=auth, **bounds)
        self._api: OpenApiConnector | None = None
        if settings.document is not None:
            described = {
                "document": settings.document,
                "actions": settings.document_actions,
                "pages": {"*list*": {"by": "link"}},
                **bounds,
            }
            self._api = OpenApiConnector(described, ctx=self.ctx, auth=auth)

    @classmethod
    def config_schema(cls) -> type[GitHubConfig]:
        """Return the model of the config: credentials, webhooks, the document, bounds."""
        return GitHubConfig

    async def check(self) -> str:
        """Ask for the rate limit, which any valid credentials may and which costs nothing."""
        try:
            rate = (await self.client.aget("/rate_limit", returns=_RateLimits)).rate
        except AutomateError as error:
            # GitHub Enterprise Server says so, unless its administrator has set limits.
            unlimited = "rate limiting is not enabled" in error.message.lower()
            if not unlimited or error.details.get("status") != _NOT_FOUND:
                raise
            return "requests are not limited"
        return f"{rate.remaining:,} of {rate.limit:,} requests are left in this hour"

    def close(self) -> None:
        """Close the connections. The next call opens new connections."""
        for each in (self.client, self._app, self._api):
            if each is not None:
                each.close()

    def normalize_error(self, exc: Exception) -> Exception:
        """Give GitHub's secondary rate limit, which may come as a plain 403, its code and wait."""
        status = exc.details.get("status") if isinstance(exc, AutomateError) else None
        if (
            isinstance(exc, AutomateError)
            and status in (403, 429)
            and exc.retry_after is None
            and "rate limit" in exc.message.lower()
        ):
            exc.code, exc.retryable = ErrorCodes.RESOURCE_EXHAUSTED, True
            # GitHub: "wait for at least one minute before retrying".
            exc.retry_after = _SECONDARY_WAIT_SECONDS
        return super().normalize_error(exc)

    # -- the document's operations -----------------------------------------------------------

    async def own_operations(self) -> Mapping[str, ActionSpec]:
        """Return the operations of GitHub's document, if the config names it."""
        return {} if self._api is None else await self._api.own_operations()

    def execute_action(self, action: str, input_data: dict[str, Any]) -> Any:
        """Carry out *action*, of this class or of the document."""
        if self._api is not None and self.is_own_operation(action):
            return self._api.execute_action(action, input_data)
        return super().execute_action(action, input_data)

    def find_own(self, name: str, own: Mapping[str, OperationSpec]) -> OperationSpec:
        """Return the spec *name* of the document, or raise ``INVALID_ARGUMENT``."""
        if self._api is not None:
            return super().find_own(name, own)
        try:
            return self.find_operation(name)
        except AutomateError as error:
            if "." in name:
                error.hint = "GitHub's own operations need its document: set document in the config"
            raise

    # -- webhooks ----------------------------------------------------------------------------

    @classmethod
    def triggers(cls) -> list[TriggerSpec]:
        """Return a trigger for each usual event, and ``events`` for one address that gets all."""
        kept = ["X-GitHub-Event", "X-GitHub-Delivery", "X-GitHub-Hook-ID"]
        signature = GitHubSignature()
        each = [
            TriggerSpec(
                name,
                payload_schema=model,
                description=str(model.__doc__),
                signature=signature,
                events=name,
                keep_headers=kept,
                replay_guard="required",
            )
            for name, model in EVENTS.items()
        ]
        others = TriggerSpec(
            _ANY,
            payload_schema=WebhookEvent,
            description="All events at one address, as an App sends them. Those with a trigger of "
            "their own start that one.",
            signature=signature,
            keep_headers=kept,
            replay_guard="required",
        )
        return [*each, others]

    def signature_for(self, trigger: str) -> GitHubSignature:
        """Return GitHub's scheme with the secrets that the config names."""
        return GitHubSignature(self._settings.webhook_secrets)

    def route_webhook(self, trigger: str, headers: Any, raw_body: bytes) -> str:
        """Return the trigger of the event in a request to ``events``, if it has its own."""
        name = self.find_trigger(trigger).signature.event_name(headers, raw_body)  # type: ignore[union-attr]
        return name if trigger == _ANY and name in EVENTS else trigger

    def parse_webhook(self, trigger: str, headers: Any, raw_body: bytes) -> Any:
        """Return the payload, sent as JSON or as a form, if the config's filters let it through."""
        found = WebhookHeaders(headers)
        body = raw_body
        if found.get("content-type", "").startswith("application/x-www-form-urlencoded"):
            body = _payload_of_form(raw_body)
        payload = super().parse_webhook(trigger, headers, body)
        event = found.get("x-github-event", trigger)
        reason = refusal(self._settings.webhooks, event, payload)
        return Ignored(reason) if reason else payload

    # -- issues ------------------------------------------------------------------------------

    @action(title="Create an issue")
    async def create_issue(
        self,
        repository: Repository,
        title: Annotated[str, Field(min_length=1, max_length=256, description="The title.")],
        call: Call,
        body: Body = "",
        labels: Labels = [],  # noqa: B006 - never changed
        assignees: Annotated[list[str], Field(max_length=10, description="Logins.")] = [],  # noqa: B006
    ) -> Issue:
        """
        Create an issue.

        With an idempotency key, as a step has one, its text ends with a mark that isn't shown:
        another attempt looks for it among the newest issues, and creates none if it is there.
        """
        mark = mark_of(call)
        if mark and call.repeated:
            newest = await self.list_issues(repository, state="all", limit=100)
            for issue in newest:
                if mark in (issue.body or ""):
                    return issue
        content = {
            "title": title, "body": marked(body, mark), "labels": labels, "assignees": assignees,
        }  # fmt: skip
        return await self._posted(
            "/repos/{owner}/{repo}/issues", repository, content, Issue, sought=bool(mark)
        )

    @action(read_only=True, title="Get an issue")
    async def get_issue(self, repository: Repository, number: Number) -> Issue:
        """Get an issue, or a pull request as an issue."""
        return await self.client.aget(
            "/repos/{owner}/{repo}/issues/{number}",
            number=number, returns=Issue, **_place(repository),
        )  # fmt: skip

    @action(read_only=True, title="List issues")
    async def list_issues(
        self,
        repository: Repository,
        state: State = "open",
        labels: Labels = [],  # noqa: B006 - never changed
        since: Annotated[str, Field(description="The earliest change, in ISO 8601.")] = "",
        limit: Limit = 100,
    ) -> list[Issue]:
        """List a repository's issues, and its pull requests as issues, the newest first."""
        query = {"state": state, "labels": ",".join(labels), "since": since}
        return await self._listed(
            "/repos/{owner}/{repo}/issues", repository, query, Issue, limit=limit
        )

    @action(idempotent=True, title="Change an issue")
    async def update_issue(
        self,
        repository: Repository,
        number: Number,
        title: Annotated[str | None, Field(description="The new title.")] = None,
        body: Annotated[str | None, Field(description="The new text, in Markdown.")] = None,
        state: Annotated[
            Literal["open", "closed"] | None, Field(description="The new state.")
        ] = None,
        labels: Annotated[
            list[str] | None, Field(description="All labels that it then has.")
        ] = None,
    ) -> Issue:
        """Change an issue, close it or open it again. What isn't given stays."""
        given = {"title": title, "body": body, "state": state, "labels": labels}
        return await self.client.arequest(
            "PATCH",
            "/repos/{owner}/{repo}/issues/{number}",
            json={name: value for name, value in given.items() if value is not None},
            number=number, returns=Issue, **_place(repository),
        )  # fmt: skip

    @action(title="Comment on an issue or a pull request")
    async def add_comment(
        self, repository: Repository, number: Number, body: Body, call: Call
    ) -> Comment:
        """
        Comment on an issue or a pull request.

        With an idempotency key, as a step has one, it ends with a mark that isn't shown: another
        attempt looks for it, and adds no second comment.
        """
        mark, path = mark_of(call), "/repos/{owner}/{repo}/issues/{number}/comments"
        if mark and call.repeated:
            found = self.client.aitems(
                path, pages=NextLink(), query={"per_page": 100}, number=number, returns=Comment,
                max_pages=100, **_place(repository),
            )  # fmt: skip
            async for comment in found:
                if mark in (comment.body or ""):
                    return comment
        content = {"body": marked(body, mark)}
        return await self._posted(
            path, repository, content, Comment, sought=bool(mark), number=number
        )

    @action(idempotent=True, title="Add labels")
    async def add_labels(
        self,
        repository: Repository,
        number: Number,
        labels: Annotated[
            list[str], Field(min_length=1, max_length=100, description="The names of labels.")
        ],
    ) -> list[Label]:
        """Add labels to an issue or a pull request, and return all that it has."""
        return await self.client.apost(
            "/repos/{owner}/{repo}/issues/{number}/labels",
            json={"labels": labels}, number=number, returns=list[Label], **_place(repository),
        )  # fmt: skip

    @action(read_only=True, title="Search issues and pull requests")
    async def search_issues(
        self,
        query: Annotated[
            str,
            Field(
                min_length=1,
                max_length=256,
                description="The query, as in GitHub's search box.",
                examples=["repo:octo-org/shop is:issue is:open label:bug"],
            ),
        ],
        limit: Annotated[int, Field(ge=1, le=1_000, description="The most items to return.")] = 100,
    ) -> list[Issue]:
        """Search issues and pull requests, the best match first."""
        found = self.client.aitems(
            "/search/issues", pages=NextLink(items="items"), max_items=limit, returns=Issue,
            query={"q": query, "per_page": min(limit, 100)},
        )  # fmt: skip
        return [each async for each in found]

    # -- pull requests -----------------------------------------------------------------------

    @action(title="Create a pull request")
    async def create_pull_request(
        self,
        repository: Repository,
        title: Annotated[str, Field(min_length=1, max_length=256, description="The title.")],
        head: Annotated[
            str,
            Field(
                min_length=1,
                description="The branch with the changes; of a fork owner:branch.",
                examples=["fast"],
            ),
        ],
        base: Annotated[str, Field(min_length=1, description="The branch that they go to.")],
        call: Call,
        body: Body = "",
        draft: Annotated[bool, Field(description="True while it isn't ready.")] = False,
    ) -> PullRequest:
        """
        Create a pull request. GitHub refuses a second open one for the same two branches.

        With an idempotency key, as a step has one, its text ends with a mark that isn't shown:
        another attempt looks for it among those of the branch, and creates none if it is there.
        """
        mark = mark_of(call)
        if mark and call.repeated and (found := await self._pull_with(mark, repository, head)):
            return found
        content = {
            "title": title, "head": head, "base": base, "body": marked(body, mark), "draft": draft,
        }  # fmt: skip
        try:
            return await self._posted(
                "/repos/{owner}/{repo}/pulls", repository, content, PullRequest, sought=bool(mark)
            )
        except AutomateError as error:
            if error.details.get("status") == _UNPROCESSABLE and _EXISTS in error.message.lower():
                if mark and (found := await self._pull_with(mark, repository, head)):
                    return found
                error.code = ErrorCodes.ALREADY_EXISTS
                error.hint = "find it by list_pull_requests, and change it by update_issue"
            elif "no commits between" in error.message.lower():
                error.hint = "change something on the branch first, such as by write_file"
            raise

    @action(idempotent=True, title="Request reviewers")
    async def request_reviewers(
        self,
        repository: Repository,
        number: Number,
        call: Call,
        reviewers: Annotated[list[str], Field(max_length=100, description="Logins.")] = [],  # noqa: B006
        teams: Annotated[
            list[str], Field(max_length=100, description="Teams, by the names in their addresses.")
        ] = [],  # noqa: B006
    ) -> PullRequest:
        """
        Ask people and teams to review a pull request.

        Another attempt asks nobody who is asked already, or has reviewed the newest commit.
        """
        if not reviewers and not teams:
            raise AutomateError(
                ErrorCodes.INVALID_ARGUMENT,
                "nobody is named to review the pull request",
                hint="give reviewers, teams or both",
            )
        if call.repeated:
            found = await self.get_pull_request(repository, number)
            people, groups = await self._asked(found, repository)
            reviewers = [each for each in reviewers if each.casefold() not in people]
            teams = [each for each in teams if each.casefold() not in groups]
            if not reviewers and not teams:
                return found
        try:
            return await self.client.apost(
                "/repos/{owner}/{repo}/pulls/{number}/requested_reviewers",
                json={"reviewers": reviewers, "team_reviewers": teams},
                number=number, returns=PullRequest, **_place(repository),
            )  # fmt: skip
        except AutomateError as error:
            if error.details.get("status") == _UNPROCESSABLE:
                error.hint = "name people and teams that may read the repository, not the author"
            raise

    @action(read_only=True, title="Get a pull request")
    async def get_pull_request(self, repository: Repository, number: Number) -> PullRequest:
        """Get a pull request."""
        return await self.client.aget(
            "/repos/{owner}/{repo}/pulls/{number}",
            number=number, returns=PullRequest, **_place(repository),
        )  # fmt: skip

    @action(read_only=True, title="List pull requests")
    async def list_pull_requests(
        self,
        repository: Repository,
        state: State = "open",
        base: Annotated[str, Field(description="The branch that they go to.")] = "",
        head: Annotated[str, Field(description="Their own branch: owner:branch.")] = "",
        limit: Limit = 100,
    ) -> list[PullRequest]:
        """List a repository's pull requests, the newest first."""
        query = {"state": state, "base": base, "head": head}
        return await self._listed(
            "/repos/{owner}/{repo}/pulls", repository, query, PullRequest, limit=limit
        )

    @action(read_only=True, title="List a pull request's files")
    async def list_pull_request_files(
        self, repository: Repository, number: Number, limit: Limit = 300
    ) -> list[ChangedFile]:
        """List the files that a pull request changes, with their differences."""
        path = "/repos/{owner}/{repo}/pulls/{number}/files"
        return await self._listed(path, repository, {}, ChangedFile, limit=limit, number=number)

    @action(idempotent=True, destructive=True, title="Merge a pull request")
    async def merge_pull_request(
        self,
        repository: Repository,
        number: Number,
        sha: Annotated[
            str | None,
            Field(description="The commit that was looked at: a newer one is not merged."),
        ] = None,
        method: Annotated[
            Literal["merge", "squash", "rebase"], Field(description="The way to merge.")
        ] = "merge",
        title: Annotated[str | None, Field(description="The merge commit's title.")] = None,
        message: Annotated[str | None, Field(description="The merge commit's message.")] = None,
    ) -> Merge:
        """Merge a pull request. One that is merged already is a success, and isn't changed."""
        given = {
            "sha": sha, "merge_method": method, "commit_title": title, "commit_message": message,
        }  # fmt: skip
        try:
            return await self.client.arequest(
                "PUT",
                "/repos/{owner}/{repo}/pulls/{number}/merge",
                json={name: value for name, value in given.items() if value is not None},
                number=number, returns=Merge, **_place(repository),
            )  # fmt: skip
        except AutomateError as error:
            if error.details.get("status") not in (_NOT_ALLOWED, _CONFLICT):
                raise
            # Whether another try helps is seen below: it decides, even if that can't be read.
            error.code, error.retryable = ErrorCodes.FAILED_PRECONDITION, False
            found = await self.get_pull_request(repository, number)
            if found.merged and sha in (None, found.head.sha):
                before = "it was merged before"
                return Merge(merged=True, sha=found.merge_commit_sha, message=before)
            if _passes(error, found, sha):
                error.code, error.retryable = ErrorCodes.ABORTED, True
            raise

    # -- branches, commits, checks, workflows ------------------------------------------------

    @action(idempotent=True, title="Create a branch")
    async def create_branch(
        self,
        repository: Repository,
        branch: BranchName,
        call: Call,
        source: Annotated[
            str,
            Field(
                min_length=1,
                description="The branch, tag or commit to begin at; the default branch without it.",
            ),
        ] = "HEAD",
    ) -> Branch:
        """
        Create a branch. One that is there at the same commit is a success.

        So is for another attempt one at an earlier commit of *source*, which moved on meanwhile.
        """
        name = branch.removeprefix("refs/heads/")
        try:
            commit = await self._commit_of(repository, source)
            await self.client.apost(
                "/repos/{owner}/{repo}/git/refs", json={"ref": f"refs/heads/{name}", "sha": commit},
                returns=_GitReference, **_place(repository),
            )  # fmt: skip
        except AutomateError as error:
            status = error.details.get("status")
            if status == _CONFLICT:
                error.code, error.retryable = ErrorCodes.FAILED_PRECONDITION, False
                error.hint = "an empty repository has no branch: write its first file by write_file"
            elif status == _UNPROCESSABLE:
                error.hint = "source is a branch, tag or commit of the repository; check both names"
            if status != _UNPROCESSABLE or _EXISTS not in error.message.lower():
                raise
            error.code = ErrorCodes.ALREADY_EXISTS
            found = await self.client.aget(
                "/repos/{owner}/{repo}/git/ref/heads%2F{name}",
                name=name, returns=_GitReference, **_place(repository),
            )  # fmt: skip
            there = found.object.sha
            moved = call.repeated and not _COMMIT.fullmatch(source)
            if there == commit or (moved and await self._is_before(there, commit, repository)):
                return Branch(ref=name, sha=there)
            error.hint = f"it is at {there}, not at {commit}: take another name, or delete it first"
            raise
        return Branch(ref=name, sha=commit)

    @action(idempotent=True, title="Set a commit's status")
    async def set_commit_status(
        self,
        repository: Repository,
        sha: Sha,
        state: Annotated[
            Literal["error", "failure", "pending", "success"], Field(description="The state.")
        ],
        context: Annotated[
            str, Field(min_length=1, description="The name; a later status replaces it.")
        ] = "automate",
        description: Annotated[str, Field(max_length=140, description="A few words.")] = "",
        target_url: Annotated[str | None, Field(description="A page that says more.")] = None,
    ) -> CommitStatus:
        """Set the status of a commit, which pull requests show and may require."""
        content = {"state": state, "context": context, "description": description}
        return await self.client.apost(
            "/repos/{owner}/{repo}/statuses/{sha}",
            json={**content, **({"target_url": target_url} if target_url else {})},
            sha=sha, returns=CommitStatus, **_place(repository),
        )  # fmt: skip

    @action(title="Create a check run")
    async def create_check_run(
        self,
        repository: Repository,
        sha: Sha,
        name: Annotated[str, Field(min_length=1, description="The name of the check.")],
        conclusion: Annotated[
            Literal["success", "failure", "neutral", "cancelled", "skipped", "action_required"]
            | None,
            Field(description="The result; without one the check is in progress."),
        ] = None,
        title: Annotated[str, Field(description="The headline of the report.")] = "",
        summary: Annotated[
            str, Field(max_length=65_000, description="The report, in Markdown.")
        ] = "",
    ) -> CheckRun:
        """Create a check run for a commit, with a report. Only a GitHub App may."""
        content: dict[str, Any] = {"name": name, "head_sha": sha}
        if conclusion is None:
            content["status"] = "in_progress"
        else:
            content |= {"status": "completed", "conclusion": conclusion}
        if title or summary:
            content["output"] = {"title": title or name, "summary": summary}
        return await self._posted("/repos/{owner}/{repo}/check-runs", repository, content, CheckRun)

    @action(title="Start a workflow of GitHub Actions")
    async def dispatch_workflow(
        self,
        repository: Repository,
        workflow: Annotated[
            str, Field(min_length=1, description="The file's name, or the id.", examples=["ci.yml"])
        ],
        ref: Annotated[str, Field(min_length=1, description="The branch or tag to run on.")],
        inputs: Annotated[
            dict[str, str], Field(max_length=25, description="The workflow's inputs.")
        ] = {},  # noqa: B006 - never changed
    ) -> None:
        """Start a workflow that has the trigger ``workflow_dispatch``."""
        path = "/repos/{owner}/{repo}/actions/workflows/{workflow}/dispatches"
        content = {"ref": ref, **({"inputs": inputs} if inputs else {})}
        await self._posted(path, repository, content, None, workflow=workflow)

    @action(read_only=True, title="List runs of workflows")
    async def list_workflow_runs(
        self,
        repository: Repository,
        workflow: Annotated[
            str, Field(description="The file's name, or the id; all if empty.", examples=["ci.yml"])
        ] = "",
        branch: Annotated[str, Field(description="The branch that they run on.")] = "",
        status: Annotated[
            RunStatus | None, Field(description="The status, or the result of those completed.")
        ] = None,
        limit: Annotated[int, Field(ge=1, le=1_000, description="The most items to return.")] = 100,
    ) -> list[WorkflowRun]:
        """List the runs of GitHub Actions' workflows, the newest first."""
        part, parts = ("workflows/{workflow}/", {"workflow": workflow}) if workflow else ("", {})
        return await self._listed(
            f"/repos/{{owner}}/{{repo}}/actions/{part}runs",
            repository,
            {"branch": branch, "status": status or ""},
            WorkflowRun,
            limit=limit,
            items="workflow_runs",
            **parts,
        )

    # -- files and releases ------------------------------------------------------------------

    @action(read_only=True, title="Get a file")
    async def get_file(
        self,
        repository: Repository,
        path: FilePath,
        ref: Annotated[str, Field(description="A branch, tag or commit.")] = "",
    ) -> File:
        """Get a file of a repository, of 1 MB at most."""
        address, parts = contents_at(path)
        found = await self.client.aget(
            address,
            query={"ref": ref} if ref else None,
            returns=RepositoryContent | list[Any],  # type: ignore[arg-type]
            **_place(repository), **parts,
        )  # fmt: skip
        return file_of(found)

    @action(idempotent=True, destructive=True, title="Write a file")
    async def write_file(
        self,
        repository: Repository,
        path: FilePath,
        message: Annotated[
            str, Field(min_length=1, max_length=10_000, description="The commit's message.")
        ],
        call: Call,
        text: Annotated[str | None, Field(description="The content, as text.")] = None,
        base64: Annotated[str | None, Field(description="The content, if it is no text.")] = None,
        sha: Annotated[
            str | None,
            Field(
                pattern=r"^[0-9a-f]{40}$",
                description="The SHA of the content to replace, as get_file returns it; "
                "without it the file is new.",
            ),
        ] = None,
        branch: Annotated[str, Field(description="The branch; the default if empty.")] = "",
    ) -> WrittenFile:
        """
        Create a file, or replace the content that *sha* names, of 1 MB at most.

        A file that somebody has changed meanwhile stays as it is. With an idempotency key, as a
        step has one, the commit's message ends with a mark: another attempt looks for it first.
        """
        content, trailer = content_of(text, base64), trailer_of(call)
        written = WrittenFile(path=path, sha=blob_sha(content))
        if trailer and call.repeated:
            written.commit = await self._commit_with(trailer, repository, path, branch)
            if written.commit:
                return written
        given = {
            "message": marked(message, trailer), "content": b64encode(content).decode("ascii"),
            **({"sha": sha} if sha else {}), **({"branch": branch} if branch else {}),
        }  # fmt: skip
        address, parts = contents_at(path)
        try:
            done = await self.client.arequest(
                "PUT", address, json=given, returns=_FileCommit, **_place(repository), **parts,
            )  # fmt: skip
        except AutomateError as error:
            if error.details.get("status") not in (_CONFLICT, _UNPROCESSABLE):
                raise
            # Whether another try helps is seen below: it decides, even if that can't be read.
            error.code, error.retryable = ErrorCodes.FAILED_PRECONDITION, False
            current = await self._sha_at(repository, path, branch)
            if current == written.sha:
                return written
            explain_refused_write(error, sha, current)
            raise
        written.commit = done.commit.sha
        return written

    @action(title="Create a release")
    async def create_release(
        self,
        repository: Repository,
        tag: Annotated[str, Field(min_length=1, description="The tag, made if it isn't there.")],
        name: Annotated[str, Field(description="The title.")] = "",
        body: Annotated[str, Field(description="The notes, in Markdown.")] = "",
        target: Annotated[str, Field(description="The branch or commit of a new tag.")] = "",
        draft: Annotated[bool, Field(description="True to publish it later.")] = False,
        prerelease: Annotated[bool, Field(description="True if it isn't for production.")] = False,
        generate_notes: Annotated[
            bool, Field(description="True to let GitHub write the notes.")
        ] = False,
    ) -> Release:
        """Create a release. GitHub refuses a second one for the same tag, unless it is a draft."""
        content: dict[str, Any] = {
            "tag_name": tag, "name": name or tag, "body": body, "draft": draft,
            "prerelease": prerelease, "generate_release_notes": generate_notes,
        }  # fmt: skip
        if target:
            content["target_commitish"] = target
        return await self._posted("/repos/{owner}/{repo}/releases", repository, content, Release)

    # -- choices -----------------------------------------------------------------------------

    @options("repository")
    async def repositories(self) -> list[FieldOption]:
        """Return the repositories that the credentials reach, as choices."""
        path, place = ("/installation/repositories", "repositories") if self._app else (
            "/user/repos", ""
        )  # fmt: skip
        found = self.client.aitems(
            path, pages=NextLink(items=place), query={"per_page": 100}, max_items=1_000
        )
        return [FieldOption(each["full_name"], each["full_name"]) async for each in found]

    # -- what is there -----------------------------------------------------------------------

    async def _pull_with(self, mark: str, repository: str, head: str) -> PullRequest | None:
        # Not by its base: GitHub gives it another one if that is merged.
        branch = head if ":" in head else f"{repository.partition('/')[0]}:{head}"
        found = await self.list_pull_requests(repository, state="all", head=branch)
        return next((each for each in found if mark in (each.body or "")), None)

    async def _asked(self, pull: PullRequest, repository: str) -> tuple[set[str], set[str]]:
        """Return the people and the teams whom another attempt need not ask, in lower case."""
        path = "/repos/{owner}/{repo}/pulls/{number}/reviews"
        reviews = await self._listed(
            path, repository, {}, _Review, limit=10_000, number=pull.number
        )
        people = {each.login for each in pull.requested_reviewers or []}
        people |= {
            each.user.login for each in reviews if each.user and each.commit_id == pull.head.sha
        }
        teams = {each.slug for each in pull.requested_teams or []}
        return {each.casefold() for each in people}, {each.casefold() for each in teams}

    async def _commit_of(self, repository: str, source: str) -> str:
        if _COMMIT.fullmatch(source):
            return source
        found = await self.client.aget(
            # One file of the commit, of which there may be thousands.
            "/repos/{owner}/{repo}/commits/{ref}", query={"per_page": 1},
            ref=source, returns=_CommitSha, **_place(repository),
        )  # fmt: skip
        return found.sha

    async def _is_before(self, commit: str, later: str, repository: str) -> bool:
        """Return True if *commit* is in the history of *later*."""
        found = await self.client.aget(
            # The second page has no files.
            "/repos/{owner}/{repo}/compare/{both}", query={"per_page": 1, "page": 2},
            both=f"{later}...{commit}", returns=_CommitComparison, **_place(repository),
        )  # fmt: skip
        return found.status in ("behind", "identical")

    async def _commit_with(
        self, trailer: str, repository: str, path: str, branch: str
    ) -> str | None:
        query = {"path": path, "sha": branch}
        try:
            found = await self._listed(
                "/repos/{owner}/{repo}/commits", repository, query, _ListedCommit, limit=100
            )
        except AutomateError as error:
            if error.details.get("status") != _CONFLICT:
                raise
            return None  # the repository is empty
        return next((each.sha for each in found if trailer in each.commit.message), None)

    async def _sha_at(self, repository: str, path: str, branch: str) -> str | None:
        """Return the SHA of the file at *path*, or None if there is none."""
        address, parts = contents_at(path)
        try:
            found = await self.client.aget(
                address,
                query={"ref": branch} if branch else None,
                returns=RepositoryContent | list[Any],  # type: ignore[arg-type]
                **_place(repository), **parts,
            )  # fmt: skip
        except AutomateError as error:
            if error.details.get("status") not in (_NOT_FOUND, _CONFLICT):
                raise
            return None
        return found.sha if isinstance(found, RepositoryContent) and found.type == "file" else None

    # -- requests ----------------------------------------------------------------------------

    async def _listed(
        self,
        path: str,
        repository: str,
        query: Mapping[str, str],
        returns: type[T],
        *,
        limit: int,
        items: str = "",
        **parts: Any,
    ) -> list[T]:
        given: dict[str, str | int] = {name: value for name, value in query.items() if value}
        found = self.client.aitems(
            path,
            pages=NextLink(items=items),
            query={**given, "per_page": min(limit, 100)},
            returns=returns,
            max_items=limit,
            **_place(repository),
            **parts,
        )
        return [each async for each in found]

    async def _posted(
        self,
        path: str,
        repository: str,
        content: Any,
        returns: type[T] | None,
        *,
        sought: bool = False,
        **parts: Any,
    ) -> T:
        """
        Send what must not be sent twice, unless another attempt looks for it first (*sought*).

        GitHub has no idempotency keys.
        """
        try:
            return await self.client.apost(
                path, json=content, returns=returns, **_place(repository), **parts
            )
        except AutomateError as error:
            if not sought:
                forbid_repeat(error, "it is unknown whether GitHub has done it: look there")
            raise


def _passes(refused: AutomateError, found: PullRequest, sha: str | None) -> bool:
    """Return True if a merge that GitHub *refused* may go well in a moment."""
    if found.merged or found.state != "open":
        return False
    if refused.details.get("status") == _CONFLICT:
        # A commit has come meanwhile, which nobody has looked at if one was named.
        return sha is None
    # GitHub: "Base branch was modified. Review and try the merge again."; None: it has yet to look.
    return _MOVED in refused.message.lower() or found.mergeable is None


def _place(repository: str) -> _Place:
    owner, _, name = repository.partition("/")
    return {"owner": owner, "repo": name}


def _payload_of_form(raw_body: bytes) -> bytes:
    """Return the JSON in the field ``payload``, as webhooks of the other content type have it."""
    try:
        found = parse_qs(raw_body.decode("ascii"), max_num_fields=10, strict_parsing=True)
        return found["payload"][0].encode()
    except (ValueError, KeyError):
        raise AutomateError(
            ErrorCodes.INVALID_ARGUMENT, "the webhook's form has no field 'payload'"
        ) from None
