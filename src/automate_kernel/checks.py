"""What can be told about workflows and secrets before anything runs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from automate_kernel.errors import AutomateError

if TYPE_CHECKING:
    from automate_kernel.kernel import Kernel
    from automate_kernel.workflows.model import Step, Workflow

__all__ = ["secret_uses", "variables_of", "workflow_problems"]


def workflow_problems(kernel: Kernel, workflow: Workflow) -> list[str]:
    """
    What would go wrong with a workflow that is well-formed, each in a line.

    Its actions exist and are given the fields that they need, its webhooks are known, and its
    environment variables are allowed.
    """
    return [
        *_trigger_problems(kernel, workflow),
        *(
            problem
            for place, step in _steps(workflow)
            for problem in _step_problems(kernel, place, step)
        ),
        *_env_problems(kernel, workflow),
    ]


def _steps(workflow: Workflow) -> Iterator[tuple[str, Step]]:
    for group in ("steps", "on_failure"):
        for step in getattr(workflow, group):
            yield f"{group}.{step.id}", step


def _step_problems(kernel: Kernel, place: str, step: Step) -> Iterator[str]:
    try:
        spec = kernel.operation(step.action)
        schema = spec.json_schema()
    except AutomateError as error:
        yield f"{place}.action: {error}"
        return
    if not isinstance(step.input, Mapping):
        return
    known: Mapping[str, Any] = schema.get("properties", {})
    if schema.get("additionalProperties") is False:
        for name in step.input:
            if "{" not in name and "$" not in name and name not in known:
                fields = ", ".join(known) or "none"
                yield f"{place}.input.{name}: {step.action} has no such field (it has: {fields})"
    for name in schema.get("required", ()):
        if name not in step.input and not any("{" in key for key in step.input):
            yield f"{place}.input: {step.action} needs the field {name!r}"


def _trigger_problems(kernel: Kernel, workflow: Workflow) -> Iterator[str]:
    from fnmatch import fnmatchcase

    from automate_kernel.workflows.model import WebhookTrigger

    for trigger in workflow.triggers:
        if not isinstance(trigger, WebhookTrigger):
            continue
        try:
            connector = kernel.plugins.connectors.get(trigger.connector)
            known = [each.name for each in connector.triggers()]
        except AutomateError as error:
            yield f"trigger: {error}"
            continue
        if not any(fnmatchcase(name, trigger.trigger) for name in known):
            has = ", ".join(known) or "none"
            yield f"trigger: {trigger.connector} has no trigger {trigger.trigger!r} (it has: {has})"


def variables_of(kernel: Kernel, workflow: Workflow) -> list[str]:
    """The environment variables that a workflow reads."""
    used = set(workflow.env)
    for _, step in _steps(workflow):
        used |= kernel.templates.compile(step.input).env_keys
    return sorted(used)


def _env_problems(kernel: Kernel, workflow: Workflow) -> Iterator[str]:
    for name in variables_of(kernel, workflow):
        try:
            kernel.env.get(name)
        except AutomateError as error:
            yield f"env: {error}"


def secret_uses(
    kernel: Kernel, config: Mapping[str, Any], token: str | None = None
) -> dict[str, list[str]]:
    """The keys of the secrets that workflows, plugins' config and webhooks need, and where."""
    uses: dict[str, list[str]] = {}

    def add(keys: Iterable[str], where: str) -> None:
        for key in keys:
            places = uses.setdefault(key, [])
            if where not in places:
                places.append(where)

    for workflow in kernel.workflows:
        for place, step in _steps(workflow):
            add(kernel.templates.compile(step.input).secret_keys, f"{workflow.name}: {place}")
        add(*_webhook_keys(kernel, workflow))
    for key, options in config.items():
        add(kernel.templates.compile(dict(options)).secret_keys, f"config.{key}")
    if token and token.startswith("$secret:"):
        add([token.removeprefix("$secret:").strip("{}")], "serve.events_token")
    return dict(sorted(uses.items()))


def _webhook_keys(kernel: Kernel, workflow: Workflow) -> tuple[list[str], str]:
    from fnmatch import fnmatchcase

    from automate_kernel.workflows.model import WebhookTrigger

    keys: list[str] = []
    for trigger in workflow.triggers:
        if not isinstance(trigger, WebhookTrigger):
            continue
        try:
            specs = kernel.plugins.connectors.get(trigger.connector).triggers()
        except AutomateError:
            continue  # told with the workflow's other problems
        for spec in specs:
            if fnmatchcase(spec.name, trigger.trigger):
                keys += getattr(spec.signature, "keys", ())
    return keys, f"{workflow.name}: webhook"
