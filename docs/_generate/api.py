"""The pages of the modules."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from _generate.markdown import NOTE, class_of, function_of, prose
from _generate.source import all_of, find, path_of, tree

__all__ = ["API", "api", "names"]

API: dict[str, tuple[str, tuple[str, ...]]] = {
    "kernel": ("Kernel", ("automate_kernel.kernel", "automate_kernel.workflows.store.catalogue")),
    "errors": (
        "Errors",
        ("automate_kernel.base.errors", "automate_kernel.operations.error_mapping"),
    ),
    "connectors": (
        "Connectors",
        (
            "automate_kernel.plugins.connectors",
            "automate_kernel.triggers.polls",
            "automate_kernel.triggers.polls.poller",
            "automate_kernel.operations.plugin",
            "automate_kernel.operations.account",
        ),
    ),
    "providers": ("Providers", ("automate_kernel.plugins.providers",)),
    "operations": (
        "Operations and calls",
        (
            "automate_kernel.operations.context",
            "automate_kernel.operations.spec",
            "automate_kernel.operations.field_options",
            "automate_kernel.operations.field_choices",
            "automate_kernel.operations.schemas.fields",
            "automate_kernel.operations.plugin_config",
            "automate_kernel.operations.replacement",
        ),
    ),
    "executors": (
        "Step executors",
        (
            "automate_kernel.operations.executors",
            "automate_kernel.operations.tasks",
            "automate_testing.contracts.step_executor",
        ),
    ),
    "relays": (
        "Relays",
        (
            "automate_kernel.relays.cloud_events",
            "automate_kernel.relays.relay",
            "automate_kernel.relays.subscriptions",
            "automate_testing.contracts.relay",
            "automate_testing.contracts.subscription",
        ),
    ),
    "signals": ("Signals", ("automate_kernel.signals",)),
    "outbox": (
        "Outbox",
        (
            "automate_kernel.outbox",
            "automate_kernel.worker",
            "automate_kernel.worker.handler",
            "automate_kernel.worker.worker",
            "automate_kernel.worker.periodic",
        ),
    ),
    "workflows": (
        "Workflows",
        (
            "automate_kernel.workflows",
            "automate_kernel.base.durations",
            "automate_kernel.workflows.steer.schedule",
            "automate_kernel.workflows.definition.graph",
            "automate_kernel.workflows.steer.executions",
            "automate_kernel.workflows.decide.dry_run",
            "automate_kernel.workflows.definition.difference",
        ),
    ),
    "code": (
        "Workflows in code",
        ("automate_kernel.workflows.code", "automate_kernel.workflows.automation"),
    ),
    "approvals": ("Approvals", ("automate_kernel.workflows.steer.approvals",)),
    "access": (
        "Access",
        (
            "automate_kernel.access.audit",
            "automate_kernel.access.tokens",
            "automate_kernel.access.sessions",
            "automate_kernel.access.saved_queries",
            "automate_kernel.access.roles",
        ),
    ),
    "budgets": (
        "Budgets",
        ("automate_kernel.operations.budgets", "automate_kernel.operations.call_rates"),
    ),
    "templates": ("Templates", ("automate_kernel.templates",)),
    "secrets": ("Secrets", ("automate_kernel.secrets",)),
    "webhooks": ("Webhooks", ("automate_kernel.triggers.webhooks",)),
    "plugins": ("Plugins", ("automate_kernel.plugins",)),
    "storage": (
        "Storage",
        (
            "automate_kernel.storage",
            "automate_kernel.storage.listen",
            "automate_kernel.storage.output_store",
        ),
    ),
    "testing": (
        "Testing",
        (
            "automate_testing",
            "automate_testing.clock",
            "automate_testing.workflows.workflow_test",
            "automate_testing.simulation",
            "automate_testing.contracts.connectors",
            "automate_testing.contracts.polls",
            "automate_testing.contracts.hostile_answers",
            "automate_testing.contracts.hostile_values",
            "automate_testing.contracts.hostile_service",
            "automate_testing.contracts.providers",
            "automate_testing.contracts.secrets",
            "automate_testing.contracts.filters",
            "automate_testing.contracts.outbox",
            "automate_testing.contracts.output_store",
        ),
    ),
    "asgi": ("ASGI", ("automate_kernel.http.app", "automate_kernel.http.operations")),
    "telemetry": (
        "Telemetry",
        (
            "automate_kernel.monitoring.logs",
            "automate_kernel.monitoring.prometheus",
            "automate_kernel.monitoring.health",
            "automate_kernel.http.probes",
            "automate_kernel.monitoring.opentelemetry",
            "automate_kernel.monitoring.waiting",
        ),
    ),
    "pages": ("Operators' pages", ("automate_pages",)),
    "sqlalchemy": ("SQLAlchemy", ("automate_sqlalchemy",)),
    "django": (
        "Django",
        (
            "automate_django",
            "automate_django.outbox",
            "automate_django.signals",
            "automate_django.storage",
            "automate_django.models",
            "automate_django.tasks",
        ),
    ),
    "django-admin": (
        "Django admin",
        (
            "automate_django.admin",
            "automate_django.admin.pages",
            "automate_django.definitions",
            "automate_django.tenants",
        ),
    ),
    "django-api": (
        "Django API",
        ("automate_django.api", "automate_django.webhooks"),
    ),
}


def _whole(node: ast.ClassDef, home: str) -> ast.ClassDef:
    """
    A class of a package *home* with all that its parts bring.

    Its parts are its private bases, and those in modules of the package.
    """
    parts, others = _parts(node, home, home)
    known = {member.name: member for part in reversed(parts) for member in _members(part)}
    body = [*node.body, *(known[name] for name in known if name not in _names(node))]
    return ast.ClassDef(node.name, others, [], body, node.decorator_list)


def _parts(node: ast.ClassDef, module: str, home: str) -> tuple[list[ast.ClassDef], list[ast.expr]]:
    parts: list[ast.ClassDef] = []
    others: list[ast.expr] = []
    for base in node.bases:
        found = find(module, base.id) if isinstance(base, ast.Name) else None
        part = found and found[1][found[2]]
        inside = found is not None and found[0].startswith(f"{home}.")
        if found and isinstance(part, ast.ClassDef) and (inside or part.name.startswith("_")):
            more, rest = _parts(part, found[0], home)
            parts += [part, *more]
            others += [] if inside else rest
        else:
            others.append(base)
    return parts, others


def _members(node: ast.ClassDef) -> list[ast.FunctionDef | ast.AsyncFunctionDef]:
    return [n for n in node.body if isinstance(n, (ast.FunctionDef, ast.AsyncFunctionDef))]


def _names(node: ast.ClassDef) -> set[str]:
    return {member.name for member in _members(node)}


def _thing(module: str, name: str, level: int) -> Iterator[str]:
    found = find(module, name)
    if found is None:
        yield f"{'#' * level} `{name}`"
        return
    home, body, index = found
    node = body[index]
    if isinstance(node, ast.ClassDef):
        yield from class_of(_whole(node, home), level)
    elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
        yield from function_of(node, name, level, method=False)
    else:
        yield f"{'#' * level} `{name}`"
        below = body[index + 1] if index + 1 < len(body) else None
        if isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant):
            yield prose(str(below.value.value))
        value = getattr(node, "value", None)
        shown = ast.unparse(value) if value is not None else ""
        if shown and len(shown) <= 200 and not shown.startswith("{"):
            yield f"```text\n{name} = {shown}\n```"


def api(title: str, modules: tuple[str, ...]) -> str:
    """The page of some modules."""
    parts = [NOTE, f"# {title}"]
    for module in modules:
        if path_of(module) is None:
            continue
        parts.append(f"## `{module}`")
        parts.append(prose(ast.get_docstring(tree(module), clean=False)))
        for name in all_of(module):
            parts += _thing(module, name, 3)
    return "\n\n".join(part for part in parts if part).rstrip() + "\n"


def names() -> str:
    """The page of what `automate_kernel` itself exports."""
    parts = [
        NOTE,
        "# Names of `automate_kernel`",
        "What `from automate_kernel import …` gives. Each name is loaded at its first use.",
    ]
    for name in all_of("automate_kernel"):
        found = find("automate_kernel", name)
        parts.append(f"## `{name}`")
        if found is None:
            continue
        home, body, index = found
        docstring = _docstring_of(body, index)
        summary = prose(docstring).split("\n\n")[0]
        page = _page_of(home, name)
        parts.append(f"{summary} See [{name}]({page}#{name.lower()}).".strip())
    return "\n\n".join(parts) + "\n"


def _docstring_of(body: list[ast.stmt], index: int) -> str | None:
    node = body[index]
    if isinstance(node, (ast.ClassDef, ast.FunctionDef)):
        return ast.get_docstring(node, clean=False)
    below = body[index + 1] if index + 1 < len(body) else None
    if isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant):
        return str(below.value.value)
    return None


def _page_of(home: str, name: str) -> str:
    for page, (_, modules) in API.items():
        if any(home == module and name in all_of(module) for module in modules):
            return f"{page}.md"
    for page, (_, modules) in API.items():
        if any(name in all_of(module) for module in modules if path_of(module)):
            return f"{page}.md"
    raise LookupError(f"{name} is on no page")
