"""
Imports each package of a distribution in its own process: `python fresh_import.py DISTRIBUTION`.

It prints the milliseconds, the best of three, or the extra that a package asks for. A package that fails
otherwise ends it with 1.
"""

from __future__ import annotations

import re
import subprocess
import sys
from importlib.metadata import files

TIMED = "import time; at = time.perf_counter(); import {}; print((time.perf_counter() - at) * 1000)"


def main(distribution: str) -> int:
    """Print a line for each package of *distribution*; return the exit status."""
    marks = [each for each in files(distribution) or [] if each.name == "py.typed"]
    status = 0
    for package in sorted({each.parts[0] for each in marks if len(each.parts) == 2}):
        command = [sys.executable, "-c", TIMED.format(package)]
        ran = [subprocess.run(command, capture_output=True, text=True) for _ in range(3)]
        failed = next((each.stderr for each in ran if each.returncode), "")
        asked = re.search(rf"pip install '{distribution}\[(\S+)\]'", failed)
        if asked:
            print(f"    {package}: asks for the extra {asked[1]}")
        elif failed:
            print(f"    {package}: {failed}", file=sys.stderr)
            status = 1
        else:
            print(f"    {package}: {min(float(each.stdout) for each in ran):.0f} ms")
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
