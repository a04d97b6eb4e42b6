"""The operator's walk of the benchmark, on few failures: each task takes no more clicks than now."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from automate_kernel.storage import MemoryStorage

sys.path.append(str(Path(__file__).parents[2]))

from benchmarks.shop import TeaShop
from benchmarks.walk import operated, walk

pytestmark = pytest.mark.skipif(
    not Path("/usr/bin/chromium").exists(), reason="there is no chromium"
)
CLICKS = {"find what": 0, "read a": 2, "mend mail.send": 3, "mend": 2, "find order": 3,
          "approve": 3, "resume all executions that failed with TimeoutError": 3, "resume": 2,
          "see": 1}  # fmt: skip


@pytest.mark.slow
def test_an_operator_mends_a_bad_day_in_few_clicks() -> None:
    shop = TeaShop(MemoryStorage())
    shop.fill(100, 30, report=len)
    with operated(shop) as (page, address):
        found = walk(page, address, shop)
    for task in found.tasks:
        most = next(most for name, most in CLICKS.items() if task.name.startswith(name))
        assert task.clicks <= most, task
        assert task.typed <= 1, task
    shop.kernel.run_until_idle()
    assert shop.kernel.outbox.stats().total("FAILED") == 0
    assert shop.kernel.executions.stats().total("FAILED") == 0
    shop.kernel.close()
