"""The versions of automate-kernel that a plugin works with, as PEP 440 and PEP 508 read them."""

from __future__ import annotations

import operator
import re
import sys
from collections.abc import Iterable

from automate_kernel.base.errors import PluginError

KERNEL = "automate-kernel"


class IncompatibleError(PluginError):
    """A plugin needs another version of this package."""


def extra_with(module: str | None, distribution: str | None) -> str | None:
    """Return the extra of *distribution* that installs *module*, or None if none is known to."""
    from importlib.metadata import PackageNotFoundError, requires

    wanted = normal_name((module or "").partition(".")[0])
    try:
        lines = (requires(distribution) if distribution else None) or []
    except PackageNotFoundError:
        return None
    for line in lines:
        name, extra = re.match(r"[\w.-]+", line), re.search(r"extra\s*==\s*['\"]([\w.-]+)", line)
        if name and extra and wanted and normal_name(name[0]) == wanted:
            return extra[1]
    return None


def normal_name(distribution: str) -> str:
    """Return a distribution's name in the form that package indexes compare."""
    return re.sub(r"[-_.]+", "-", distribution).lower()


def kernel_version() -> str | None:
    """Return the version of this package."""
    version = getattr(sys.modules.get("automate_kernel"), "__version__", None)
    return version if isinstance(version, str) else None


def requirement_on_kernel(requires: Iterable[str]) -> str:
    """
    Return the versions of this package that a distribution's requirements ask for; empty for any.

    A requirement with a marker is left out: most often it holds for an extra only, and the
    installer of the distribution has applied it.
    """
    named = [each for each in requires if ";" not in each and _names_kernel(each)]
    if not named:
        return ""  # packaging is imported only where a plugin has a requirement to read
    if len(named) == 1 and (plain := _PLAIN_REQUIREMENT.fullmatch(named[0])):
        clauses = [each.strip() for each in plain["clauses"].split(",")]
        return ",".join(sorted(clauses, reverse=True))
    from packaging.requirements import InvalidRequirement, Requirement

    specifiers: list[str] = []
    for text in named:
        try:
            requirement = Requirement(text)
        except InvalidRequirement:
            continue
        # Lower bounds first, as people write them.
        specifiers += sorted(map(str, requirement.specifier), reverse=True)
    return ",".join(specifiers)


def _names_kernel(requirement: str) -> bool:
    name = re.match(r"\s*([\w.-]+)", requirement)
    return name is not None and normal_name(name[1]) == KERNEL


def satisfies(version: str, specifier: str) -> bool:
    """
    Return True if *specifier* (``>=0.1,<2``) allows *version*.

    A pre-release counts like any other version. Raises `ValueError` for an unreadable specifier.
    """
    plain = _satisfies_plainly(version, specifier)
    if plain is not None:
        return plain
    from packaging.specifiers import InvalidSpecifier, SpecifierSet

    try:
        allowed = SpecifierSet(specifier)
    except InvalidSpecifier:
        raise ValueError(f"{specifier.strip()!r} is no version specifier") from None
    return allowed.contains(version, prereleases=True)


# Nearly every plugin asks for `automate-kernel>=0.1,<2`, some with an extra. Read here, the start
# of an application doesn't import packaging for it, which takes longer than the scan itself.
_CLAUSE = r"\s*(?:>=|<=|>|<)\s*\d+(?:\.\d+)*\s*"
_PLAIN_REQUIREMENT = re.compile(
    rf"{KERNEL}\s*(?:\[[\w\s,.-]*\])?\s*\(?(?P<clauses>{_CLAUSE}(?:,{_CLAUSE})*)\)?", re.IGNORECASE
)
_PLAIN_SPECIFIER = re.compile(rf"{_CLAUSE}(?:,{_CLAUSE})*")
_COMPARE = {">=": operator.ge, "<=": operator.le, ">": operator.gt, "<": operator.lt}


def _satisfies_plainly(version: str, specifier: str) -> bool | None:
    """Return the answer of `satisfies` for versions that are numbers alone; None for others."""
    if not re.fullmatch(r"\d+(\.\d+)*", version) or not _PLAIN_SPECIFIER.fullmatch(specifier):
        return None
    ours = _numbers(version)
    return all(
        _COMPARE[sign](ours, _numbers(wanted))
        for sign, wanted in re.findall(r"(>=|<=|>|<)\s*([\d.]+)", specifier)
    )


def _numbers(version: str) -> list[int]:
    numbers = [int(each) for each in version.split(".")]
    while numbers and not numbers[-1]:  # 2 is 2.0
        numbers.pop()
    return numbers


def incompatibility(specifier: str) -> PluginError | None:
    """Return the error of a plugin that needs *specifier* of this package; None if this fits."""
    version = kernel_version()
    try:
        if version is None or satisfies(version, specifier):
            return None
        problem = f"it needs {KERNEL} {specifier}, and this is {version}"
    except ValueError as error:
        problem = f"it does not say clearly which {KERNEL} it needs: {error}"
    return IncompatibleError(problem, hint=f"install versions of it and of {KERNEL} that fit")
