"""Pages of executions, and the filters that choose among them."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from automate_kernel.errors import AutomateError
from automate_kernel.testing.clock import FakeClock
from automate_kernel.testing.executions.hooks import WORKFLOW, ExecutionHooks
from automate_kernel.workflows.definition.model import Workflow
from automate_kernel.workflows.engine.execution import ExecutionStatus
from automate_kernel.workflows.engine.executions import ExecutionStore

__all__ = ["PagesContract"]


class PagesContract(ExecutionHooks):
    """Executions a page at a time."""

    def some(self, store: ExecutionStore, workflow: Workflow, n: int, **options: Any) -> list[str]:
        """Begin *n* executions, the newest first."""
        first = options.pop("first", 0)
        event_ids = [f"01890000-0000-7000-8000-{first + i:012x}" for i in range(n)]
        return [self.begin(store, workflow, id=each, **options) for each in event_ids][::-1]

    def listed(self, store: ExecutionStore, **options: Any) -> list[str]:
        """Return the ids on one page."""
        return [each.id for each in store.page(**options).executions]

    def test_pages_follow_each_other(
        self, store: ExecutionStore, workflow: Workflow, clock: FakeClock
    ) -> None:
        """No execution is left out or repeated, though several begin at the same moment."""
        ids = self.some(store, workflow, 4)
        clock.advance(1)
        ids = [*self.some(store, workflow, 3, first=4), *ids]
        seen, after = list[str](), ""
        for _ in range(4):
            page = store.page(limit=2, after=after)
            seen += [each.id for each in page.executions]
            after = page.after
        assert after == ""
        assert sorted(seen) == sorted(ids)
        assert set(seen[:3]) == set(ids[:3])

    def test_filters_narrow_the_list(
        self, store: ExecutionStore, workflow: Workflow, clock: FakeClock
    ) -> None:
        """Status, workflow, tenant, error, age and label; all of them must hold."""
        other = Workflow.from_dict({**WORKFLOW, "name": "other"})
        (failed,) = self.some(store, workflow, 1)
        self.end(store, self.claim(store), ExecutionStatus.FAILED)
        clock.advance(100)
        (tenants,) = self.some(store, other, 1, first=1, tenant_id="a", labels={"order": "7"})
        since = clock() - timedelta(seconds=50)
        assert self.listed(store) == [tenants, failed]
        assert self.listed(store, status="FAILED") == [failed]
        assert self.listed(store, status="FAILED", workflow="other") == []
        assert self.listed(store, error_group="SlackApiError in chat.post") == [failed]
        assert self.listed(store, workflow="other", tenant_id="a") == [tenants]
        assert self.listed(store, tenant_id="b") == []
        assert self.listed(store, created_after=since) == [tenants]
        assert self.listed(store, created_before=since) == [failed]
        assert self.listed(store, ids=[failed, tenants]) == [tenants, failed]
        assert self.listed(store, ids=[failed, tenants], tenant_id="a") == [tenants]
        assert self.listed(store, label="order=7") == self.listed(store, label="7") == [tenants]
        assert self.listed(store, label="7", status="FAILED") == []
        assert self.listed(store, label="7", tenant_id="b") == []

    def test_events_are_read_if_they_are_asked_for(
        self, store: ExecutionStore, workflow: Workflow
    ) -> None:
        """Without them a page costs the same, however large payloads are."""
        self.some(store, workflow, 1, labels={"order": "7"})
        (bare,) = store.page().executions
        (whole,) = store.page(events=True).executions
        assert (bare.event.name, bare.labels) == ("", {})
        assert (whole.event.name, whole.labels) == ("order.created", {"order": "7"})

    def test_a_rare_one_is_looked_for_along_an_index(
        self, store: ExecutionStore, workflow: Workflow
    ) -> None:
        """A page looks through so many, and the next one looks on."""
        (failed,) = self.some(store, workflow, 1)
        self.end(store, self.claim(store), ExecutionStatus.FAILED)
        self.some(store, workflow, 6, first=1)
        options: dict[str, Any] = {"error_group": "SlackApiError in chat.post", "look": 4}
        page = store.page(**options)
        assert (page.executions, page.looked, bool(page.after)) == ([], 4, True)
        page = store.page(after=page.after, **options)
        assert [each.id for each in page.executions] == [failed]
        assert self.listed(store, seconds=60, **options) == [failed]

    def test_a_place_in_another_list_is_refused(
        self, store: ExecutionStore, workflow: Workflow
    ) -> None:
        """And so is what is no place."""
        self.some(store, workflow, 3)
        after = store.page(limit=1).after
        wrong: list[dict[str, Any]] = [
            {"status": "PENDING", "after": after},
            {"after": "x"},
            {"after": f"{after}x"},
        ]
        for options in wrong:
            with pytest.raises(AutomateError, match="no such page"):
                store.page(**options)
