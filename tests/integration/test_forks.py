"""A kernel that was used before its process was forked, as servers do that load it first."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import sqlalchemy as sa
from automate_sqlalchemy import metadata

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="nothing is forked here")

SCRIPT = """
import json, os, sys
from automate_kernel import Kernel
from automate_kernel.connectors import Connector, action
from automate_sqlalchemy import SqlAlchemyStorage

class Shop(Connector):
    key = "shop"
    display_name = "Shop"

    def __init__(self, config=None, *, ctx=None):
        super().__init__(config, ctx=ctx)
        self.pid = os.getpid()

    @action
    async def owner(self) -> int:
        return self.pid

kernel = Kernel(SqlAlchemyStorage(sys.argv[1]), plugins=[Shop], discover=False, secrets={})

@kernel.action("sum.up")
async def sum_up(numbers: list) -> int:
    return sum(numbers)

@kernel.action("sum.plainly")
def sum_plainly(numbers: list) -> int:
    return sum(numbers)

kernel.add_workflow({
    "name": "sums",
    "trigger": {"type": "manual"},
    "steps": [
        {"id": "each", "for_each": [1, 2, 3], "concurrency": 3, "action": "sum.up",
         "input": {"numbers": ["{{ item }}", 10]}},
        {"id": "beside", "needs": [], "action": "sum.plainly", "timeout": 60,
         "input": {"numbers": [1, 2]}},
    ],
    "output": "{{ steps.each.output }}",
})

def use():
    execution = kernel.run("sums")
    for number in range(20):
        kernel.outbox.enqueue("note", {"number": number})
    owner = kernel.invoke("shop.owner")
    return [str(execution.status), execution.output, owner == os.getpid()]

told = [use()]
reading, writing = os.pipe()
child = os.fork()
if child == 0:
    os.write(writing, json.dumps(use()).encode())
    os._exit(0)
os.close(writing)
told.append(use())
with os.fdopen(reading) as pipe:
    told.append(json.loads(pipe.read()))
told.append(os.waitpid(child, 0)[1])
told.append(use())
told.append(kernel.outbox.stats().counts["note"]["PENDING"])
kernel.close()
print(json.dumps(told))
"""


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        url = f"sqlite:///{tmp_path / 'forks.sqlite3'}"
    else:
        url = request.getfixturevalue("postgresql_url")
    engine = sa.create_engine(url)
    metadata.create_all(engine)
    engine.dispose()
    return url


def test_parent_and_child_go_on(url: str) -> None:
    """Each with its own threads, connections and instances, at the same time."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", SCRIPT, url],
        capture_output=True, text=True, timeout=200, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    whole = ["COMPLETED", [11, 12, 13], True]
    assert json.loads(done.stdout) == [whole, whole, whole, 0, whole, 80]
