"""
The checker of a template's syntax tree, which runs before compilation.

It refuses all syntax that is not on its list. Secrets and environment variables are read by literal
name only, so that a workflow's secrets are known without running it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, TypeVar

from jinja2 import nodes

from automate_kernel.base.errors import SecretError, TemplateError, did_you_mean
from automate_kernel.secrets.handles import SecretRef, check_key
from automate_kernel.templates.context import RESERVED_NAMES
from automate_kernel.templates.filters import JINJA_TESTS, wrong_arguments
from automate_kernel.templates.secret_references import has_reference, split

if TYPE_CHECKING:
    from automate_kernel.templates.filters import FilterRegistry

T = TypeVar("T")

COUNTED = "__counted"
"""The filter around each loop's iterable; no author can write its name."""

_ALLOWED_NAMES = """
    Template Output TemplateData For If Assign AssignBlock Macro NSRef With Name Const Tuple List
    Dict Pair Keyword CondExpr Filter Test Call Getitem Getattr Slice Concat Compare Operand
    BinExpr UnaryExpr
"""
_ALLOWED: tuple[type[nodes.Node], ...] = tuple(
    getattr(nodes, name) for name in _ALLOWED_NAMES.split()
)
# The parts of each of these that may be a secret if the whole may be: what a block gives as text,
# and what a value holds. What a macro or a {% set %} holds isn't given where it stands, so the rule
# for a whole value can't be checked there.
_PASSING: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(("Template", "With"), ("body",)),
    **dict.fromkeys(("Concat", "Output"), ("nodes",)),
    **dict.fromkeys(("Dict", "List", "Tuple"), ("items",)),
    "CondExpr": ("expr1", "expr2"),
    "For": ("body", "else_"),
    "If": ("body", "elif_", "else_"),
    "Pair": ("value",),
}
_ALONE = "a workflow's text stands alone: share text by a macro in it, or by a filter of your own"
_STATEMENTS = {
    "Block": ("{% block %}", _ALONE),
    "CallBlock": ("{% call %}", "give the macro the text: {% set text %}...{% endset %}"),
    "EvalContextModifier": ("{% autoescape %}", "write | e where a value goes into HTML"),
    "Extends": ("{% extends %}", _ALONE),
    "FilterBlock": ("{% filter %}", "write {% set text %}...{% endset %}{{ text | upper }}"),
    "FromImport": ("{% from %}", _ALONE),
    "Import": ("{% import %}", _ALONE),
    "Include": ("{% include %}", _ALONE),
    "Scope": ("{% autoescape %}", "write | e where a value goes into HTML"),
    "ScopedEvalContextModifier": ("{% autoescape %}", "write | e where a value goes into HTML"),
}
_GLOBALS = frozenset({"namespace", "range"})
_STORABLE = "a name that always means the same"
_SECRET_RULE = "a secret can only be a whole value or a part of text, and no filter can see it"  # noqa: S105


class Checker:
    """Checks a tree, and collects the literal names that it reads in *secrets* and *variables*."""

    def __init__(self, depth: int, filters: FilterRegistry) -> None:
        self.secrets: set[str] = set()
        self.variables: set[str] = set()
        self.whole: bool = False
        """True for a single expression, whose value keeps its type."""
        self._own: set[str] | frozenset[str] = _GLOBALS
        self._depth = depth
        self._filters = filters

    def check(self, tree: nodes.Template, *, secrets: bool) -> None:
        """Check *tree* and all below it; unless *secrets*, it may be none itself."""
        self._check_depth(tree)
        macros = {each.name for each in tree.find_all(nodes.Macro)}
        stored = {each.name for each in tree.find_all(nodes.Name) if each.ctx != "load"}
        self._own = macros | stored | _GLOBALS
        self._visit(tree, secrets=secrets)
        self.whole = _is_whole(tree)

    def _check_depth(self, root: nodes.Node) -> None:
        # Without recursion: this is what makes recursion over the tree safe.
        level: list[nodes.Node] = [root]
        for _ in range(self._depth + 2):
            level = [child for node in level for child in node.iter_child_nodes()]
            if not level:
                return
        message = f"it is nested more than {self._depth} deep"
        raise _error(level[0].lineno, message, hint="Limits.depth bounds it")

    def _visit(self, node: nodes.Node, *, secrets: bool) -> None:
        if not isinstance(node, _ALLOWED):
            name = type(node).__name__
            syntax, hint = _STATEMENTS.get(name, (f"{{% {name.lower()} %}}", None))
            message = f"{syntax} is not available in workflow templates"
            raise _error(node.lineno, message, hint=hint)
        visitor = getattr(self, f"_visit_{type(node).__name__.lower()}", None)
        (visitor or self._visit_children)(node, secrets=secrets)

    def _visit_children(self, node: nodes.Node, *, secrets: bool) -> None:
        passing = _PASSING.get(type(node).__name__, ())
        for child in node.iter_child_nodes(exclude=passing):
            self._visit(child, secrets=False)
        for child in node.iter_child_nodes(only=passing):
            self._visit(child, secrets=secrets)

    def _visit_output(self, node: nodes.Output, *, secrets: bool) -> None:
        node.nodes = [part for child in node.nodes for part in self._parts(child)]
        self._visit_children(node, secrets=secrets)

    def _visit_for(self, node: nodes.For, *, secrets: bool) -> None:
        if node.recursive:
            message = "recursive loops are not available in workflow templates"
            raise _error(node.lineno, message, hint="write a macro that calls itself")
        self._visit_children(node, secrets=secrets)
        node.iter = nodes.Filter(node.iter, COUNTED, [], [], None, None, lineno=node.lineno)

    def _visit_macro(self, node: nodes.Macro, *, secrets: bool) -> None:
        self._check_stored(node.name, node.lineno)
        self._visit_children(node, secrets=False)

    def _visit_assignblock(self, node: nodes.AssignBlock, *, secrets: bool) -> None:
        if node.filter is not None or not isinstance(node.target, nodes.Name):
            message = "{% set %} with a block takes a name, and nothing more"
            hint = "filter the name afterwards: {{ text | upper }}"
            raise _error(node.lineno, message, hint=hint)
        self._visit_children(node, secrets=False)

    def _visit_nsref(self, node: nodes.NSRef, *, secrets: bool) -> None:
        self._check_stored(node.name, node.lineno)
        if node.attr.startswith("_"):
            raise _error(node.lineno, f"{node.attr!r} can't be set: it begins with _")

    def _parts(self, node: nodes.Expr) -> list[nodes.Expr]:
        if not isinstance(node, nodes.TemplateData):
            return [node]
        line = node.lineno
        parts: list[nodes.Expr] = []
        for piece in _located(line, lambda: split(node.data)):
            if isinstance(piece, str):
                parts.append(nodes.TemplateData(piece, lineno=line))
            else:
                secret = isinstance(piece, SecretRef)
                name = piece.key if isinstance(piece, SecretRef) else piece.name
                load = nodes.Name("secrets" if secret else "env", "load", lineno=line)
                parts.append(nodes.Getattr(load, name, "load", lineno=line))
        return parts

    def _visit_getattr(self, node: nodes.Getattr, *, secrets: bool) -> None:
        if not self._literal(node.node, node.attr, node.lineno, secrets=secrets):
            self._visit(node.node, secrets=False)

    def _visit_getitem(self, node: nodes.Getitem, *, secrets: bool) -> None:
        name = node.arg.value if isinstance(node.arg, nodes.Const) else None
        if not self._literal(node.node, name, node.lineno, secrets=secrets):
            self._visit_children(node, secrets=False)

    def _literal(self, root: nodes.Node, name: object, line: int, *, secrets: bool) -> bool:
        kind = root.name if isinstance(root, nodes.Name) else ""
        if kind not in {"secrets", "env"} or not isinstance(name, str):
            return False
        if kind == "env":
            self.variables.add(name)
        elif secrets:
            self.secrets.add(_located(line, lambda: check_key(name)))
        else:
            raise _error(line, _SECRET_RULE)
        return True

    def _visit_name(self, node: nodes.Name, *, secrets: bool) -> None:
        name = node.name
        if node.ctx != "load":
            self._check_stored(name, node.lineno)
        elif name in {"secrets", "env"}:
            example = "secrets.KEY" if name == "secrets" else "env.NAME"
            message = f"{name!r} is read by literal name only, as in {example}"
            raise _error(node.lineno, message)
        if name.startswith("__") or name == "self":
            raise _error(node.lineno, f"{name!r} is not available in workflow templates")

    def _check_stored(self, name: str, line: int) -> None:
        if name in RESERVED_NAMES or name in _GLOBALS:
            raise _error(line, f"{name!r} can't be assigned: it is {_STORABLE}")
        if name.startswith("__"):
            raise _error(line, f"{name!r} is not available in workflow templates")

    def _visit_call(self, node: nodes.Call, *, secrets: bool) -> None:
        called = node.node
        if isinstance(called, nodes.Name) and called.name not in self._own | RESERVED_NAMES:
            name = called.name
            if name in self._filters:
                hint = f"write what it filters before it: value | {name}"
                raise _error(node.lineno, f"{name!r} is a filter, and no function", hint=hint)
        self._visit_children(node, secrets=False)

    def _visit_const(self, node: nodes.Const, *, secrets: bool) -> None:
        if isinstance(node.value, str) and has_reference(node.value):
            hint = "write secrets.KEY or env.NAME, joined to text by ~"
            message = "$secret: and $env: have no meaning inside an expression"
            raise _error(node.lineno, message, hint=hint)

    def _visit_sub(self, node: nodes.Sub, *, secrets: bool) -> None:
        left = node.left
        if isinstance(left, nodes.Getattr) and isinstance(left.node, nodes.Name):
            right: nodes.Node = node.right
            while isinstance(right, (nodes.Getattr, nodes.Getitem)):
                right = right.node
            if left.node.name == "steps" and isinstance(right, nodes.Name):
                hint = f"for the step of that name write steps['{left.attr}-{right.name}']"
                message = f"steps.{left.attr}-{right.name} is a subtraction"
                raise _error(node.lineno, message, hint=hint)
        self._visit_children(node, secrets=False)

    def _visit_filter(self, node: nodes.Filter, *, secrets: bool) -> None:
        self._check_filter(node.name, node.lineno)
        self._check_arguments(node.name, node, node.args)
        if node.name == "map" and node.args:
            applied = node.args[0]
            if not isinstance(applied, nodes.Const) or not isinstance(applied.value, str):
                raise _error(node.lineno, "map takes the name of a filter, as literal text")
            self._check_filter(applied.value, node.lineno)
            self._check_arguments(applied.value, node, node.args[1:])
        self._visit_children(node, secrets=False)

    def _check_arguments(
        self, name: str, node: nodes.Filter, arguments: Sequence[nodes.Node]
    ) -> None:
        function = self._filters.get(name)
        if function is None or node.dyn_args is not None or node.dyn_kwargs is not None:
            return  # Jinja's own, or arguments that only the values show
        keywords: list[str] = [str(getattr(each, "key", "")) for each in node.kwargs]
        if problem := wrong_arguments(name, function, len(arguments), keywords):
            raise _error(node.lineno, problem[0], hint=problem[1])

    def _check_filter(self, name: str, line: int) -> None:
        if name not in self._filters:
            remedy = did_you_mean(name, self._filters.names()) or "add it with register_filter"
            raise _error(line, f"there is no filter {name!r}", hint=remedy)

    def _visit_test(self, node: nodes.Test, *, secrets: bool) -> None:
        if node.name not in JINJA_TESTS:
            remedy = did_you_mean(node.name, JINJA_TESTS) or None
            raise _error(node.lineno, f"there is no test {node.name!r}", hint=remedy)
        self._visit_children(node, secrets=False)


def _is_whole(tree: nodes.Template) -> bool:
    if len(tree.body) != 1 or not isinstance(tree.body[0], nodes.Output):
        return False
    first, *rest = tree.body[0].nodes
    # A line break at the end is that of a block of YAML.
    ends = [each.data for each in rest if isinstance(each, nodes.TemplateData)]
    return not isinstance(first, nodes.TemplateData) and (
        not rest or (ends == ["\n"] and len(rest) == 1)
    )


def _located(line: int, work: Callable[[], T]) -> T:
    try:
        return work()
    except (TemplateError, SecretError) as error:
        raise _error(line, error.message, hint=error.hint) from None


def _error(line: int, message: str, *, hint: str | None = None) -> TemplateError:
    return TemplateError(message, hint=hint, details={"line": line})
