"""The catalogue of the plugins in this repository, and the levels that a plugin can reach."""

from __future__ import annotations

from pathlib import Path

from _generate.markdown import NOTE

__all__ = ["catalogue", "plugin_levels"]

_PLUGINS = Path(__file__).parents[2] / "plugins"
_INTRODUCTION = """\
The plugins of this repository. Each is a distribution of its own, with a README that says more.
The page is written from their manifests, and the tests run each example. How to write one:
[your first plugin](tutorial/your-first-plugin.md).

`automate plugins ls --search WORD` looks through what is installed, and
`automate plugins show KEY --markdown` prints the page of one."""
_ERRORS = """\
Each error is an `AutomateError` with a [code](reference/errors.md). These codes follow from the
answer of a service, unless the plugin knows more. Input that doesn't fit is `INVALID_ARGUMENT`:
nothing is called."""


def catalogue() -> str:
    """The page of all plugins that have a manifest."""
    from automate_kernel.plugins.manifest import EXAMPLE_FILE, MANIFEST_FILE, Manifest
    from automate_testing.authoring.reference import errors_table, reference_page

    manifests = sorted(_PLUGINS.glob(f"*/src/*/{MANIFEST_FILE}"))
    parts = [f"{NOTE}\n", f"# Catalogue\n\n{_INTRODUCTION}\n"]
    for path in manifests:
        manifest = Manifest.read(path)
        example = path.with_name(EXAMPLE_FILE)
        text = example.read_text("utf-8") if example.is_file() else None
        parts.append(
            reference_page(manifest.distribution, manifest.plugins, text, level=2, errors=False)
        )
    parts.append(f"## Errors\n\n{_ERRORS}\n\n{errors_table()}\n")
    return "\n".join(parts)


_LEVELS = """\
`automate plugins check` looks at a plugin and computes its level: the highest one for which
nothing is missing, at this level or below. Nobody can claim a level. Every problem is printed with
its remedy."""


def plugin_levels() -> str:
    """The page of the levels."""
    from automate_testing.authoring.levels import REQUIREMENTS, PluginLevel

    parts = [NOTE, "# Levels of a plugin", _LEVELS]
    for level in PluginLevel:
        if level is PluginLevel.BROKEN:
            parts += [
                f"## {level.value}: {level.word}",
                "Something that `loads` requires is missing.",
            ]
            continue
        rows = ["| requirement | is met if |", "| --- | --- |"]
        rows += [
            f"| `{each.name}` | {each.meaning} |"
            for each in REQUIREMENTS.values()
            if each.level is level
        ]
        parts += [f"## {level.value}: {level.word}", "\n".join(rows)]
    return "\n\n".join(parts) + "\n"
