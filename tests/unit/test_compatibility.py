"""Compatibility: version specifiers mean what they mean to packaging tools."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from packaging.specifiers import SpecifierSet

from automate_kernel.plugins.compatibility import (
    kernel_version,
    requirement_on_kernel,
    satisfies,
)

RELEASES = st.lists(st.integers(0, 3), min_size=1, max_size=3).map(
    lambda parts: ".".join(map(str, parts))
)
CLAUSES = st.builds(
    str.__add__, st.sampled_from([">=", "<=", ">", "<", "==", "!="]), RELEASES
) | st.builds(lambda o, v, w: f"{o} {v}.{w}", st.just("~="), RELEASES, st.integers(0, 3))
WILD = st.builds(lambda o, v: f"{o}{v}.*", st.sampled_from(["==", "!="]), RELEASES)
SPECIFIERS = st.lists(CLAUSES | WILD, max_size=3).map(", ".join)


@given(RELEASES, SPECIFIERS)
def test_specifiers_mean_what_they_mean_to_pip(version: str, specifier: str) -> None:
    """Every operator, wildcard and list gives the verdict of PEP 440."""
    assert satisfies(version, specifier) == SpecifierSet(specifier).contains(version)


@pytest.mark.parametrize(
    ("version", "specifier", "holds"),
    [
        ("0.2.0rc1", ">=0.2", False),
        ("0.2.0rc1", "<0.2", False),
        ("0.2.0rc1", ">=0.1", True),
        ("0.2.0.post1", ">=0.2", True),
        ("0.2.0rc2", ">=0.2.0rc1", True),
        ("0.2.0+local", "==0.2", True),
        ("1.0rc10", ">=1.0rc9", True),
        ("1.1.post1", ">1.1", False),
    ],
)
def test_pre_and_post_releases_have_their_place(version: str, specifier: str, holds: bool) -> None:
    """A pre-release comes before its release, a post-release after it."""
    assert satisfies(version, specifier) is holds


@pytest.mark.parametrize("specifier", ["0.1", "=>1", "soon", ">=", "~>1"])
def test_nonsense_is_an_error(specifier: str) -> None:
    """It must not pass for "any version"."""
    with pytest.raises(ValueError, match="no version specifier"):
        satisfies("1.0", specifier)


@pytest.mark.parametrize(
    ("requires", "specifier"),
    [
        (["automate-kernel>=0.1,<2"], ">=0.1,<2"),
        (["httpx", "Automate_Kernel [yaml] (>=1)"], ">=1"),
        (["automate-kernel"], ""),
        (["automate-kernel>=9; extra == 'new'"], ""),
        (["automate-kernel-extras>=9"], ""),
        (["automate-kernel>=1", "automate-kernel<3"], ">=1,<3"),
    ],
)
def test_a_distributions_requirement_is_read(requires: list[str], specifier: str) -> None:
    """As metadata writes it, without those that hold for an extra only."""
    assert requirement_on_kernel(requires) == specifier


def test_our_own_version_is_known() -> None:
    """The package knows its version, and fits itself."""
    version = kernel_version()
    assert version is not None
    assert satisfies(version, f"=={version}")
