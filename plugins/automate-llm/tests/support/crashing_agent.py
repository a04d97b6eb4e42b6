"""
An agent in a process that kills itself: before or after the commit of a given number, before the
first commit after an answer of a given number, or in a tool.

    python crashing_agent.py URL FOLDER WHEN

WHEN is ``before`` or ``after`` a commit, ``answer`` or ``tool``. It forks a child for each place to
die at, and one that finishes the work, an hour later by its clock; and writes the places to
`FOLDER/result.json`. A child that has nothing left to die at is the last.
"""

from __future__ import annotations

import gc
import json
import shutil
import sys
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import anyio
import sqlalchemy as sa
from pydantic_ai import Agent
from pydantic_ai.messages import ModelResponse
from pydantic_ai.models.wrapper import WrapperModel

from automate_kernel import Kernel, WorkflowContext
from automate_kernel.testing.clock import FakeClock
from automate_llm import DurableAgent
from automate_sqlalchemy import SqlAlchemyStorage

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[4] / "tests" / "support")]
from llm_support import scripted_model  # noqa: E402
from mortal_process import die, ends  # noqa: E402


def note(path: Path, line: str) -> None:
    with open(path, "a") as file:
        file.write(line + "\n")


def make(
    folder: Path, url: str, place: tuple[str, int] | None, clock: Any = None
) -> tuple[Kernel, Any]:
    """A kernel whose process dies at *place*, the kind and its number."""
    engine = sa.create_engine(f"sqlite:///{folder / 'run.sqlite3'}")
    kernel = Kernel(SqlAlchemyStorage(engine, clock=clock), discover=False)
    seen = {"commits": 0, "answers": 0}
    own = engine.dialect.do_commit

    def commit(connection: Any) -> None:
        seen["commits"] += 1
        # Whichever thread's it is: the answer that has come is in no commit yet.
        if place in {("before", seen["commits"]), ("answer", seen["answers"])}:
            die()
        own(connection)
        if place == ("after", seen["commits"]):
            die()

    class Counted(WrapperModel):
        async def request(self, *given: Any) -> ModelResponse:
            answer = await super().request(*given)
            seen["answers"] += 1
            return answer

    agent = Agent(Counted(scripted_model(url)), name="clerk")

    @agent.tool_plain(metadata={"idempotent": True})
    def find(number: int) -> str:
        note(folder / "find", str(number))
        return f"order {number} costs 40"

    @agent.tool_plain
    def refund(amount: int) -> str:
        note(folder / "refund", str(amount))
        if place == ("tool", 1):
            die()
        return f"refunded {amount}"

    durable = DurableAgent(agent, kernel)

    @kernel.workflow
    async def refunding(ctx: WorkflowContext, prompt: str) -> str:
        return (await durable.run(ctx, prompt)).output

    if place is not None:
        engine.dialect.do_commit = commit  # type: ignore[method-assign]
    return kernel, refunding


def create(folder: Path, url: str) -> None:
    """Start the execution, in a database of its own."""
    folder.mkdir()
    kernel, _ = make(folder, url, None)
    kernel.storage.create_tables()  # type: ignore[attr-defined]
    kernel.start("refunding", "refund order 7", idempotency_key="one")


def one(folder: Path, url: str, place: tuple[str, int]) -> bool:
    """Die at *place*, and finish in another process; False if it came to its end before that."""

    def begin() -> None:
        kernel, _ = make(folder, url, place)
        kernel.run_until_idle()

    def finish() -> None:
        # Leases of the dead end, and retries are due, without a wait.
        clock = FakeClock(datetime.now(timezone.utc) + timedelta(hours=1))
        kernel, _ = make(folder, url, None, clock)
        for _ in range(20):
            kernel.run_until_idle()
            (execution,) = kernel.executions.find(workflow="refunding")
            if execution.status.finished:
                break
            clock.advance(60)
        execution = kernel.executions.get(execution.id)
        told = {
            "status": execution.status.value, "error": execution.error, "output": execution.output,
            "steps": [run.step_id for run in execution.steps],
        }  # fmt: skip
        (folder / "told.json").write_text(json.dumps(told))

    ended = ends(begin)
    if not ends(finish):
        raise SystemExit("what finishes the work was killed")
    return not ended


def main() -> None:
    url, folder, when = sys.argv[1], Path(sys.argv[2]), sys.argv[3]
    started, places = folder / "started", []
    # They import much, here once for all children.
    scripted_model(url)
    anyio.run(anyio.sleep, 0)
    gc.freeze()  # else each child's collector copies all of it
    ends(lambda: create(started, url))
    for number in range(1, 2 if when == "tool" else 100):
        base = f"{url.removesuffix('/v1')}/{when}-{number}/v1"
        places.append(number)
        place = folder / f"{when}-{number}"
        shutil.copytree(started, place)
        if not one(place, base, (when, number)):
            break
    (folder / "result.json").write_text(json.dumps(places))


if __name__ == "__main__":
    main()
