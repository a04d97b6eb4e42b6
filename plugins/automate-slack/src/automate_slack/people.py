"""The people of a workspace: who somebody in Slack is to the approvals of the host."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from automate_kernel.base.errors import AutomateError, ErrorCodes
from automate_slack.config import SlackConfig
from automate_slack.forms import value_at
from automate_slack.web_api import WebApi

_ROLE = "role:"


class People:
    """Names Slack's users as approvals know them, and finds the user of a name."""

    def __init__(self, api: WebApi, config: SlackConfig) -> None:
        self._api = api
        self._names = {_folded(slack): name for slack, name in config.people.items()}
        self._users = {name: slack for slack, name in config.people.items()}
        self._roles = config.roles
        self._team: str | None = None

    async def name_of(self, user_id: str) -> str:
        """
        Return the name of a user: of the config, else their e-mail, else the id.

        Raises ``PERMISSION_DENIED`` for a bot, for an account that was closed, and for a guest from
        another workspace: its e-mail is only what that workspace says.
        """
        known = self._names.get(_folded(user_id))
        if known is not None:
            return known
        user = value_at(await self._api.call("users.info", user=user_id), "user")
        if value_at(user, "deleted") or value_at(user, "is_bot"):
            raise _nobody("bots and closed accounts can't decide")
        if value_at(user, "is_stranger") or await self._own_team() not in _teams(user):
            raise _nobody("people of other workspaces can't decide")
        email = value_at(user, "profile", "email")
        if not isinstance(email, str) or not email:
            return user_id
        return self._names.get(_folded(email), email.lower())

    async def roles_of(self, user_id: str, by: Iterable[str]) -> list[str]:
        """Return those roles in *by* (``role:NAME``) that the config gives to a user."""
        named = [each.removeprefix(_ROLE) for each in by if each.startswith(_ROLE)]
        return [role for role in named if await self._has(user_id, self._roles.get(role, ()))]

    async def user_of(self, channel: str) -> str:
        """Return the user whose name or e-mail *channel* is; any other one as it is."""
        found = self._users.get(channel, channel)
        if "@" not in found[1:]:
            return found
        return await self._api.call_for_text(("user", "id"), "users.lookupByEmail", email=found)

    async def _has(self, user_id: str, members: Iterable[str]) -> bool:
        for each in members:
            if each == user_id:
                return True
            if each.startswith("S"):
                answer = await self._api.call("usergroups.users.list", usergroup=each)
                users = value_at(answer, "users")
                if isinstance(users, list) and user_id in users:
                    return True
        return False

    async def _own_team(self) -> str:
        if self._team is None:
            self._team = await self._api.call_for_text(("team_id",), "auth.test")
        return self._team


def _teams(user: Any) -> list[Any]:
    shared = value_at(user, "enterprise_user", "teams")
    return [value_at(user, "team_id"), *(shared if isinstance(shared, list) else ())]


def _folded(slack: str) -> str:
    # Ids are case-sensitive by Slack's word, yet always upper case.
    return slack.lower()


def _nobody(message: str) -> AutomateError:
    return AutomateError(ErrorCodes.PERMISSION_DENIED, message)
