"""A tester that reads the OpenAPI schemas sends what they allow and what they don't."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).parents[4] / "examples" / "shop"
SOURCE = Path(__file__).parents[4] / "src"
TESTER = Path(__file__).parent / "tester.py"


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.parametrize("project", ["shop", "service"])
def test_answers_are_as_the_schema_says(tmp_path: Path, project: str) -> None:
    """No 500, no answer that the schema doesn't have, nothing accepted that it forbids."""
    pytest.importorskip("schemathesis")
    pytest.importorskip("drf_spectacular")
    folder = tmp_path / "example"
    shutil.copytree(EXAMPLE, folder, ignore=shutil.ignore_patterns("*.sqlite3*", "mail"))
    environment = {**os.environ, "PYTHONPATH": str(SOURCE)}
    environment.pop("DJANGO_SETTINGS_MODULE", None)
    environment.pop("SHOP_SQLITE", None)
    done = subprocess.run(
        [sys.executable, str(TESTER), project],
        cwd=folder, env=environment, text=True, capture_output=True, timeout=240, check=False,
    )  # fmt: skip
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr[-3000:]}"
    assert int(re.findall(r"(\d+) requests", done.stdout)[0]) > 100
