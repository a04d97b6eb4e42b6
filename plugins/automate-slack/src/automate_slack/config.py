"""The configuration of a Slack connector."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field


class SlackConfig(BaseModel):
    """A Slack app in one workspace."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)

    account: str = "SLACK_BOT_TOKEN"
    """The key of the secret with the bot's token (xoxb-…)."""
    base_url: str = "https://slack.com/api"
    """The address of Slack's Web API."""
    timeout_seconds: Annotated[float, Field(gt=0, le=600)] = 30.0
    """The most seconds for one request in all."""
    allow_private_networks: list[str] = []
    """Private addresses that may be reached, for a double of Slack in tests."""
    allow_plain_http: bool = False
    """Let `base_url` be http:// on another machine, where all between can read the token."""
    people: dict[str, str] = {}
    """Slack users, by id or e-mail, and the names that approvals know them by. Others are known
    by their e-mail or, without one, by their id."""
    roles: dict[str, list[str]] = {}
    """Roles of approvals, each with its users (U…) and user groups (S…) in Slack."""
