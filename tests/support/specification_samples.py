"""The samples of the specification, of which ``plugins/automate-compat`` keeps a copy."""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from typing import Any

_COPY = Path(__file__).parents[2] / "plugins/automate-compat/tests/samples.md"
_SAMPLES = dict(re.findall(r"^```(\w+)\n(.*?)^```$", _COPY.read_text(), re.DOTALL | re.MULTILINE))


def has_sample(holder: Any, name: str) -> bool:
    """Return True if the source of *holder* has a sample word for word, but for its imports."""
    sample = re.sub(r"^from (?:.*\([^)]*\)|.*)$", "", _SAMPLES[name], flags=re.MULTILINE)
    return " ".join(sample.split()) in " ".join(inspect.getsource(holder).split())
