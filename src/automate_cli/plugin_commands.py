"""The commands that plugins add to ``automate``: listed without an import of any of them."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

from automate_cli.command import adopt, reporting
from automate_cli.output import kept_logging, log_to_stderr
from automate_cli.session import HostSession
from automate_cli.settings import load_settings
from automate_kernel.base.errors import ConfigError
from automate_kernel.plugins.kinds import COMMAND
from automate_kernel.plugins.records import PluginRecord, Policy
from automate_kernel.plugins.registry import Registry


class RootCommands(TyperGroup):
    """
    The program's own commands, and those in the entry-point group ``automate.commands``.

    The name of an entry point is that of the command, its target a ``typer.Typer``. A plugin can't
    take the name of a command that is there. A disabled plugin has no command.
    """

    def list_commands(self, ctx: Any) -> list[str]:
        """Return the names of all, the program's own first."""
        own = super().list_commands(ctx)
        added = (record.key for record in _records(_registry(ctx)))
        return [*own, *(name for name in added if name not in own)]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Return a command by its name; that of a plugin is imported once it is called."""
        own = super().get_command(ctx, cmd_name)
        if own is not None:
            return own
        registry = _registry(ctx)
        found = {record.key: record for record in _records(registry)}.get(cmd_name)
        return None if found is None else _PluginCommand(registry, found)


def _registry(ctx: Any) -> Registry[Any]:
    if isinstance(ctx.obj, HostSession):
        return ctx.obj.plain.plugins.registry(COMMAND.name)
    try:
        settings = load_settings(ctx.params.get("config"))
    except ConfigError:
        return Registry(COMMAND)  # the command itself reports what is wrong
    return Registry(
        COMMAND,
        discover=settings["discover"],
        policy=Policy.of(disabled=settings["disabled"], winners=settings["winners"]),
    )


def _records(registry: Registry[Any]) -> list[PluginRecord]:
    return [record for record in registry.records() if record.usable]


class _PluginCommand(TyperCommand):
    """A command of a plugin, which is imported as it is called."""

    def __init__(self, registry: Registry[Any], record: PluginRecord) -> None:
        super().__init__(record.key, help=f"Of the plugin {record.source}.")
        self._registry = registry

    @cached_property
    def _real(self) -> Any:
        command = typer.main.get_command(self._registry.get(str(self.name)))
        command.name = self.name
        return command

    def make_context(
        self, info_name: str | None, args: list[str], parent: Any = None, **extra: Any
    ) -> Any:
        """Import the plugin, and return the context of its command."""
        if isinstance(parent.obj, HostSession):
            adopt(self._real, parent.info_name)
        else:
            # Until the command has ended.
            parent.with_resource(kept_logging())
            with reporting(debug=False):
                log_to_stderr("error", brief=True)
                self._real  # noqa: B018  (imported, or reported)
        return self._real.make_context(info_name, args, parent=parent, **extra)
