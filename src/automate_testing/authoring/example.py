"""The example workflow that a plugin's package ships as ``example.yaml``."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from automate_kernel.base.errors import AutomateError
from automate_kernel.kernel import Kernel
from automate_kernel.monitoring.diagnosis import workflow_problems
from automate_kernel.operations.plugin import Plugin
from automate_kernel.operations.schemas.checks import json_schema_of
from automate_kernel.operations.schemas.example import example_of
from automate_kernel.plugins.discovery import scan
from automate_kernel.plugins.manifest import EXAMPLE_FILE, beside
from automate_kernel.workflows import Workflow
from automate_kernel.workflows.definition.loader import load_workflow
from automate_kernel.workflows.definition.triggers import EventTrigger, WebhookTrigger
from automate_testing.authoring.project import announced_in


@dataclass(frozen=True, slots=True)
class ExampleFile:
    """A workflow that shows what a plugin is for."""

    path: Path

    @classmethod
    def of(cls, target: str) -> ExampleFile | None:
        """Return the example in the package of *target*, or None; imports nothing."""
        path = beside(target, EXAMPLE_FILE)
        return cls(path) if path is not None else None

    @property
    def text(self) -> str:
        """The text of the file."""
        return self.path.read_text("utf-8")

    def problems(self, plugin: Any = None) -> list[str]:
        """
        Return what is wrong with the example where the installed plugins are; nothing is called.

        Every call is rendered, and compared with the input that its action takes. The event that
        starts it is made up from the payload schema of its webhook or poll. If the operations of
        *plugin* follow from its config, which an application has, the file is read and no more.
        """
        try:
            workflow = load_workflow(self.path)
            if has_own_operations(plugin):
                return []
            with Kernel(env_allow=workflow.env, listed=self._not_installed()) as kernel:
                kernel.add_workflow(workflow)
                return list(_problems(kernel, workflow))
        except AutomateError as error:
            return [str(error)]

    def _not_installed(self) -> dict[str, dict[str, str]]:
        """Return the targets, by kind and key, of its own package if that isn't installed."""
        installed, listed = scan(), dict[str, dict[str, str]]()
        for found in announced_in(self.path.parent.name):
            if found not in installed:
                listed.setdefault(found.kind, {})[found.key] = found.target
        return listed

    def names(self, word: str) -> bool:
        """Return True if a step, a trigger or a template of the example uses *word*."""
        return word in self.text


def has_own_operations(plugin: Any) -> bool:
    """Return True if the operations of *plugin*, a class, follow from its config."""
    own = getattr(plugin, "own_operations", Plugin.own_operations)
    return own is not Plugin.own_operations


def _problems(kernel: Kernel, workflow: Workflow) -> Iterator[str]:
    yield from workflow_problems(kernel, workflow)
    dry = kernel.dry_run(workflow.name, _payload(kernel, workflow))
    yield from dry.problems


def _payload(kernel: Kernel, workflow: Workflow) -> Any:
    for trigger in workflow.triggers:
        schema = _payload_schema(kernel, trigger)
        if schema is not None:
            return example_of(json_schema_of(schema), "event.payload")
    return {}


def _payload_schema(kernel: Kernel, trigger: Any) -> Any:
    """Return the schema of the events of *trigger*: only webhooks and polls have a schema."""
    connectors = kernel.plugins.connectors
    if isinstance(trigger, WebhookTrigger):
        return connectors.get(trigger.connector).find_trigger(trigger.trigger).payload_schema
    if not isinstance(trigger, EventTrigger):
        return None
    key, _, name = trigger.event.partition(".")
    polls = connectors.get(key).polls() if key in connectors else []
    return next((each.payload_schema for each in polls if each.name == name), None)
