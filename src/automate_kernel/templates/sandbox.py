"""
The sandbox: Jinja's immutable sandbox, with bounds on a template's time and memory.

It is imported at the first compilation: Jinja takes its time. Values come from JSON, so attributes
mean keys, and the only methods are those that `members` lists.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from typing import Any

from jinja2 import StrictUndefined, TemplateSyntaxError, nodes
from jinja2.compiler import CodeGenerator, Frame
from jinja2.parser import Parser
from jinja2.runtime import Context, Macro, Undefined
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace, missing

from automate_kernel.base.errors import TemplateError, did_you_mean, type_name
from automate_kernel.secrets.handles import SecretRef
from automate_kernel.templates.bounded_filters import BOUNDED_TESTS, BoundedFilters, RenderContext
from automate_kernel.templates.context import EnvironmentResolver, TemplateContext
from automate_kernel.templates.filters import FilterRegistry
from automate_kernel.templates.limits import Budget, Limits, compared
from automate_kernel.templates.members import BINARY, LOOP_METHODS, Method, member
from automate_kernel.templates.syntax import Checker


class _SecretsView:
    """The value of ``secrets`` in a template: its fields are references."""

    __slots__ = ()


_SECRETS = _SecretsView()
GLOBALS: dict[str, Any] = {"namespace": Namespace, "range": range}
"""The functions that templates can call."""
_KEYS_LOOKED_AT = 200
_NAME_LENGTH = 64


class Missing(StrictUndefined):
    """The value of a missing name; using it raises an error with the name."""

    __slots__ = ()

    @property
    def _undefined_message(self) -> str:
        name, obj = self._undefined_name, self._undefined_obj
        if self._undefined_hint:
            return self._undefined_hint
        if obj is missing:
            return f"{name!r} is not defined"
        if not isinstance(obj, Mapping):
            return f"{type_name(obj)} has no {name!r}"
        # Comparing takes the square of their lengths, and strangers may have chosen them.
        some = itertools.islice(obj, _KEYS_LOOKED_AT)
        texts = (key for key in some if isinstance(key, str) and len(key) <= _NAME_LENGTH)
        near = did_you_mean((name or "")[:_NAME_LENGTH], texts)
        return f"there is no {name!r}" + (f" ({near})" if near else "")


class _Generator(CodeGenerator):
    """Makes code that yields values as they are, where Jinja's yields text."""

    def _output_child_to_const(
        self, node: nodes.Expr, frame: Frame, finalize: CodeGenerator._FinalizeInfo
    ) -> str:
        if not isinstance(node, nodes.TemplateData):
            # A constant is computed when the template is rendered, under its budget.
            raise nodes.Impossible
        return str(node.as_const(frame.eval_ctx))

    def _output_child_pre(self, *_: Any) -> None:
        pass

    def _output_child_post(self, *_: Any) -> None:
        pass

    def visit_Concat(self, node: nodes.Concat, frame: Frame) -> None:  # noqa: N802 - Jinja's name
        self.write("context.concat((")
        for operand in node.nodes:
            self.visit(operand, frame)
            self.write(", ")
        self.write("))")

    def visit_Getitem(self, node: nodes.Getitem, frame: Frame) -> None:  # noqa: N802
        # A literal key is the author's text like an attribute, so messages may name it.
        if isinstance(node.arg, nodes.Const) and isinstance(node.arg.value, str):
            name = node.arg.value
            self.visit_Getattr(nodes.Getattr(node.node, name, "load", lineno=node.lineno), frame)
        elif isinstance(node.arg, nodes.Slice):
            self._called("slice", node.node, frame)
            for part in (node.arg.start, node.arg.stop, node.arg.step):
                self.write(", ")
                self.visit(part if part is not None else nodes.Const(None), frame)
            self.write(")")
        else:
            super().visit_Getitem(node, frame)

    def visit_List(self, node: nodes.List, frame: Frame) -> None:  # noqa: N802
        self._made(super().visit_List, node, frame)

    def visit_Dict(self, node: nodes.Dict, frame: Frame) -> None:  # noqa: N802
        self._made(super().visit_Dict, node, frame)

    def visit_Tuple(self, node: nodes.Tuple, frame: Frame) -> None:  # noqa: N802
        if node.ctx == "load":
            self._made(super().visit_Tuple, node, frame)
        else:
            super().visit_Tuple(node, frame)

    def visit_Compare(self, node: nodes.Compare, frame: Frame) -> None:  # noqa: N802
        if len(node.ops) == 1:
            self.write(f"context.compare({node.ops[0].op!r}, ")
            self.visit(node.expr, frame)
            self.write(", ")
            self.visit(node.ops[0].expr, frame)
            self.write(")")
            return
        self._called("compare_chain", node.expr, frame)
        self.write(", (")
        for operand in node.ops:
            self.write(f"({operand.op!r}, lambda: ")
            self.visit(operand.expr, frame)
            self.write("), ")
        self.write("))")

    def return_buffer_contents(self, frame: Frame, force_unescaped: bool = False) -> None:
        # A macro's text, which Jinja would join without counting.
        self.writeline(f"return context.concat({frame.buffer})")

    def visit_AssignBlock(self, node: nodes.AssignBlock, frame: Frame) -> None:  # noqa: N802
        self.push_assign_tracking()
        block = frame.inner()
        block.require_output_check = False
        block.symbols.analyze_node(node)
        self.enter_frame(block)
        self.buffer(block)
        self.blockvisit(node.body, block)
        self.newline(node)
        self.visit(node.target, frame)
        self.write(f" = context.concat({block.buffer})")
        self.pop_assign_tracking(frame)
        self.leave_frame(block)

    def _made(self, visit: Callable[[Any, Frame], None], node: nodes.Expr, frame: Frame) -> None:
        self.write("context.made(")
        visit(node, frame)
        self.write(")")

    def _called(self, name: str, first: nodes.Node, frame: Frame) -> None:
        self.write(f"context.{name}(")
        self.visit(first, frame)


class Sandbox(ImmutableSandboxedEnvironment):
    """The environment in which all templates of an engine are compiled and run."""

    code_generator_class: type[CodeGenerator] = _Generator
    context_class: type[Context] = RenderContext
    intercepted_binops: frozenset[str] = frozenset(BINARY)

    def __init__(self, filters: FilterRegistry, limits: Limits) -> None:
        # Optimising would compute constants, `"x" * 10**9` too, at compilation.
        super().__init__(undefined=Missing, optimized=False, keep_trailing_newline=True)
        self.limits = limits
        self._registry = filters
        self.globals: dict[str, Any] = {}
        self.filters: BoundedFilters = BoundedFilters(filters)
        self.tests: dict[str, Any] = dict(BOUNDED_TESTS)

    def expression(self, source: str) -> nodes.Template:
        """Parse a bare expression."""
        parser = Parser(self, source, state="variable")
        tree = parser.parse_expression()
        if not parser.stream.eos:
            line = parser.stream.current.lineno
            raise TemplateSyntaxError("there is more after the expression", line)
        return nodes.Template([nodes.Output([tree], lineno=1)], lineno=1)

    def checked(self, tree: nodes.Template, *, secrets: bool) -> Checker:
        """Return the checker that has found nothing wrong in *tree*."""
        checker = Checker(self.limits.depth, self._registry)
        checker.check(tree, secrets=secrets)
        return checker

    def variables(self, context: TemplateContext) -> dict[str, Any]:
        """Return the variables of one rendering."""
        return {
            **GLOBALS,
            **context.variables(),
            "secrets": _SECRETS,
            "env": context.env or EnvironmentResolver(),
        }

    def scope(self, variables: dict[str, Any], budget: Budget) -> RenderContext:
        """Return the context in which one template runs."""
        scope = RenderContext(self, variables, None, {})
        scope.budget = budget
        return scope

    def getattr(self, obj: Any, attribute: str) -> Any:
        """Return the key *attribute* of a mapping, or a method or field that templates may use."""
        if isinstance(obj, Mapping):
            # Keys first: `event.payload.items` is the payload's own key.
            try:
                return obj[attribute]
            except (KeyError, TypeError):
                pass
        elif isinstance(obj, _SecretsView):
            return SecretRef(attribute)
        elif isinstance(obj, EnvironmentResolver):
            value = obj.get(attribute)
            hint = f"environment variable {attribute!r} is not set"
            return self.undefined(hint, name=attribute) if value is None else value
        elif isinstance(obj, Undefined):
            # Not getattr, which finds __class__ and the fields of the object itself.
            str(obj)  # raises, saying what is missing
        elif isinstance(obj, Namespace):
            names = object.__getattribute__(obj, "_Namespace__attrs")
            if attribute in names:
                return names[attribute]
            hint = f"the namespace has no {attribute!r}"
            return self.undefined(hint, name=attribute)
        found = member(obj, attribute)
        return self.undefined(obj=obj, name=attribute) if found is None else found

    def getitem(self, obj: Any, argument: Any) -> Any:
        """Return the item *argument*, or a field of an object that a filter made."""
        if isinstance(obj, (_SecretsView, EnvironmentResolver, Namespace)):
            return self.getattr(obj, argument)
        if isinstance(obj, Undefined):
            str(obj)  # raises, saying what is missing
        try:
            return obj[argument]
        except (TypeError, LookupError):
            if isinstance(argument, str) and not isinstance(obj, (Mapping, str, list)):
                found = member(obj, argument)
                if found is not None:
                    return found
            # The key was computed, so naming it might show a value.
            return self.undefined(hint=f"{type_name(obj)} has no such item")

    def call(self, context: Context, obj: Any, /, *args: Any, **kwargs: Any) -> Any:
        """Call a method, and nothing else."""
        kwargs.pop("_loop_vars", None)
        kwargs.pop("_block_vars", None)
        budget: Budget = context.budget  # type: ignore[attr-defined]
        budget.spend()
        if isinstance(obj, Method):
            return obj(budget, *args, **kwargs)
        if obj is range:
            return budget.turns(range(*args, **kwargs))
        if obj is Namespace:
            return _namespace(budget, *args, **kwargs)
        if isinstance(obj, Macro):
            return obj(*args, **kwargs)
        if getattr(obj, "__func__", None) in LOOP_METHODS:
            budget.charge("loop.changed()", sum(compared(budget, arg, arg) for arg in args))
            return obj(*args)
        if isinstance(obj, Undefined):
            str(obj)  # raises, saying what is missing
        raise TemplateError(f"{type_name(obj)} can't be called")

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        """Do an operator that can make much of little, within bounds."""
        budget: Budget = context.budget  # type: ignore[attr-defined]
        return BINARY[operator](budget, left, right)


def _namespace(budget: Budget, *args: Any, **kwargs: Any) -> Namespace:
    made = Namespace(*args, **kwargs)
    names = object.__getattribute__(made, "_Namespace__attrs")
    for name in names:
        if not isinstance(name, str) or name.startswith("_"):
            raise TemplateError("a namespace's names are text, and don't begin with _")
    budget.weigh(names)
    return made
