"""The files and lines of what is wrong with workflows on a kernel."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from automate_kernel.workflows.definition.document import Document, read_json, read_yaml
from automate_kernel.workflows.definition.problems import show_path

if TYPE_CHECKING:
    from automate_kernel.kernel import Kernel
    from automate_kernel.workflows.definition.model import Workflow


def _read(file: Path) -> list[Document]:
    if file.suffix not in (".yaml", ".yml", ".json"):
        return []
    text = file.read_text("utf-8-sig")
    return [read_json(text)] if file.suffix == ".json" else read_yaml(text)


def problems_of_workflows(
    kernel: Kernel, workflows: Iterable[Workflow], paths: Iterable[Path]
) -> Iterator[str]:
    """Yield the problems of *workflows* on *kernel*, with their lines in the files at *paths*."""
    from automate_kernel.monitoring.diagnosis import workflow_problems

    places = dict(_places(paths))
    for workflow in workflows:
        for text in workflow_problems(kernel, workflow):
            file, lines = places.get(workflow.name, (workflow.name, {}))
            place = text.partition(": ")[0]
            while place and place not in lines:
                place = place.rpartition(".")[0]
            yield f"{file}:{lines[place]}: {text}" if place else f"{file}: {text}"


def _places(paths: Iterable[Path]) -> Iterator[tuple[str, tuple[str, dict[str, int]]]]:
    """Yield the name of each workflow in *paths*, with its file and the lines of its fields."""
    for path in paths:
        for file in sorted(path.iterdir()) if path.is_dir() else [path]:
            for document in _read(file):
                if isinstance(document.value, dict):
                    yield str(document.value.get("name")), (str(file), _lines(document))


def _lines(document: Document) -> dict[str, int]:
    return {show_path(path, document.value): line for path, line in document.lines.items()}
