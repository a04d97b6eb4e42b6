"""The names that templates can use: events, steps, references to secrets, the environment."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from automate_kernel.base.arguments import check_texts
from automate_kernel.base.errors import TemplateError

RESERVED_NAMES = frozenset({"env", "event", "execution", "secrets", "steps"})
"""Names with a fixed meaning, which neither a template nor *extra* can take."""


class EnvironmentResolver:
    """
    Reads the environment variables in *allow*, for ``$env:NAME`` and ``{{ env.NAME }}``.

    No other variable is readable: an environment is full of credentials, and templates are
    written by people who shouldn't see them.
    """

    def __init__(
        self, allow: Iterable[str] = (), *, environ: Mapping[str, str] | None = None
    ) -> None:
        names = check_texts(allow, "env_allow", 'env_allow=["REGION"]')
        self.allow: frozenset[str] = frozenset(names)
        self._environ = os.environ if environ is None else environ

    def get(self, name: str) -> str | None:
        """Return the variable's value, or None. Raises `TemplateError` if it is not allowed."""
        if name not in self.allow:
            hint = f"add {name!r} to env_allow if workflows may read it"
            raise TemplateError(f"environment variable {name!r} is not allowed", hint=hint)
        return self._environ.get(name)

    def __repr__(self) -> str:
        return f"EnvironmentResolver(allow={sorted(self.allow)})"


@dataclass(frozen=True, slots=True)
class TemplateContext:
    """
    The names that a template can use.

    ``event``, ``execution`` and ``steps`` hold JSON; ``secrets`` is always there, as references
    only. *extra* adds names, such as ``item`` and ``index`` in a for-each.
    """

    event: Mapping[str, Any] = field(default_factory=dict)
    execution: Mapping[str, Any] = field(default_factory=dict)
    steps: Mapping[str, Any] = field(default_factory=dict)
    env: EnvironmentResolver | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if taken := sorted(RESERVED_NAMES & self.extra.keys()):
            raise TemplateError(f"extra names can't be {', '.join(taken)}: templates have these")

    def variables(self) -> dict[str, Any]:
        """Return the JSON that templates see, by name."""
        return {**self.extra, "event": self.event, "execution": self.execution, "steps": self.steps}
