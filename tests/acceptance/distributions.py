"""
Checks what is to be published: `python distributions.py FOLDER`, a folder with wheels and sdists.

It prints each file with its size, and ends with 1 if one lacks something that its users need.
"""

from __future__ import annotations

import re
import sys
import tarfile
import zipfile
from email.message import Message
from email.parser import Parser
from pathlib import Path

TEMPLATE = "automate_testing/authoring/template/"
"""Files of a project to be made, whose tests are its own."""
TEST = re.compile(r"(^|/)(tests?/|conftest\.py$|test_[^/]*\.py$)")


def of_wheel(path: Path) -> list[str]:
    """Return what is wrong with the wheel *path*."""
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
        metadata = next(each for each in names if each.endswith(".dist-info/METADATA"))
        about = Parser().parsestr(archive.read(metadata).decode())
    folder = metadata.removesuffix("METADATA")
    packages = {each.partition("/")[0] for each in names} - {folder.rstrip("/")}
    wrong = [
        f"{each} has no py.typed" for each in sorted(packages) if f"{each}/py.typed" not in names
    ]
    if f"{folder}licenses/LICENSE" not in names:
        wrong.append("the licence is missing")
    tests = [each for each in names if TEST.search(each) and not each.startswith(TEMPLATE)]
    return wrong + [f"{each} is a test" for each in tests] + of_metadata(about)


def of_sdist(path: Path) -> list[str]:
    """Return what is wrong with the sdist *path*."""
    with tarfile.open(path) as archive:
        names = [each.partition("/")[2] for each in archive.getnames()]
        described = archive.extractfile(f"{path.name.removesuffix('.tar.gz')}/PKG-INFO")
        assert described is not None
        about = Parser().parsestr(described.read().decode())
    wanted = ("LICENSE", "README.md", "pyproject.toml")
    wrong = [f"{each} is missing" for each in wanted if each not in names]
    if not any(TEST.search(each) for each in names):
        wrong.append("it has no tests: who packages it for a system can't run them")
    return wrong + of_metadata(about)


def of_metadata(about: Message) -> list[str]:
    """Return what the index would show wrongly."""
    wrong = []
    if about["License-Expression"] != "Apache-2.0":
        wrong.append("the licence is not said as an expression")
    if not str(about.get_payload()).strip():
        wrong.append("its page on the index is empty")
    needed = [each for each in about.get_all("Requires-Dist", []) if " @ " in each]
    return wrong + [f"the index refuses the requirement {each}" for each in needed]


def main(folder: Path) -> int:
    """Print the files of *folder* with their sizes and problems; return the exit status."""
    files = sorted([*folder.glob("*.whl"), *folder.glob("*.tar.gz")])
    wheels = {each.name.split("-")[0] for each in files if each.suffix == ".whl"}
    sdists = {each.name.rpartition("-")[0] for each in files if each.suffix == ".gz"}
    problems = [f"{each}: only a wheel or only an sdist" for each in sorted(wheels ^ sdists)]
    for file in files:
        print(f"{file.stat().st_size:>10,} {file.name}")
        wrong = of_wheel(file) if file.suffix == ".whl" else of_sdist(file)
        problems += [f"{file.name}: {each}" for each in wrong]
    print(f"{sum(each.stat().st_size for each in files):>10,} bytes in {len(files)} files")
    if not files:
        problems.append(f"{folder} has nothing to publish")
    print(*problems, sep="\n", file=sys.stderr)
    return bool(problems)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
