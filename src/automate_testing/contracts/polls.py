"""
The contract of a poll, as tests that its author inherits.

::

    class TestNewRows(PollContract):
        poll = "new_row"

        @pytest.fixture
        def connector(self):
            return Sheet({"url": fake_sheet.url})

        def happen(self, connector):
            fake_sheet.append("a row")
"""

from __future__ import annotations

import json
from typing import Any, ClassVar

import pytest

from automate_kernel.plugins.connectors import Connector, PollResult, PollSpec
from automate_kernel.triggers.polls.spec import checked_result
from automate_testing.contracts.plugin_contract import fail_for_fixture, finished, require_json

__all__ = ["PollContract"]

_MOST_PAGES = 100


class PollContract:
    """
    Subclass it, name the *poll*, and give it a fixture ``connector`` and the method `happen`.

    The service that `connector` asks is a double, which the tests have for themselves.
    """

    poll: ClassVar[str]

    @pytest.fixture
    def connector(self) -> Connector:
        """Make the connector under test."""
        fail_for_fixture("connector", type(self).__name__)

    def happen(self, connector: Connector) -> None:
        """Let one thing happen at the service that is an event of the poll."""
        raise NotImplementedError("override `happen`")

    def test_its_result_is_well_formed(self, connector: Connector) -> None:
        """The first call has no cursor; events and the next cursor are JSON."""
        result = self._call(connector, None)
        require_json([event.payload for event in result.events])
        assert json.loads(json.dumps(result.cursor, allow_nan=False)) == result.cursor, (
            "the cursor doesn't come back from JSON as it was: keep text, numbers, lists, objects"
        )

    def test_what_happens_is_one_event(self, connector: Connector) -> None:
        """Once it has happened, and not a second time."""
        before, cursor = self._drained(connector, None)
        self.happen(connector)
        new, cursor = self._drained(connector, cursor)
        assert len(set(new) - set(before)) == 1
        again, _ = self._drained(connector, cursor)
        assert not set(again) - set(before) - set(new)

    def test_nothing_that_happened_is_left_out(self, connector: Connector) -> None:
        """However much it was, page after page."""
        before, cursor = self._drained(connector, None)
        for _ in range(5):
            self.happen(connector)
        new, _ = self._drained(connector, cursor)
        assert len(set(new) - set(before)) == 5

    def test_the_same_cursor_gives_the_same_events(self, connector: Connector) -> None:
        """A worker that dies before it has saved asks again: the ids tell what is known."""
        _, cursor = self._drained(connector, None)
        self.happen(connector)
        first, second = (self._call(connector, cursor) for _ in range(2))
        assert [event.id for event in first.events] == [event.id for event in second.events]
        assert first.cursor == second.cursor

    def _spec(self, connector: Connector) -> PollSpec:
        found = {spec.name: spec for spec in connector.polls()}
        assert self.poll in found, f"it has the polls {', '.join(found) or 'none'}"
        return found[self.poll]

    def _call(self, connector: Connector, cursor: Any) -> PollResult:
        spec = self._spec(connector)
        return checked_result(spec, finished(getattr(connector, spec.attribute)(cursor)))

    def _drained(self, connector: Connector, cursor: Any) -> tuple[list[str], Any]:
        """Return the ids of all that there is from *cursor* on, and the last cursor."""
        ids: list[str] = []
        for _ in range(_MOST_PAGES):
            result = self._call(connector, cursor)
            ids += [event.id for event in result.events]
            cursor = result.cursor
            if not result.more:
                return ids, cursor
        raise AssertionError(f"it said more=True {_MOST_PAGES} times: is there ever an end?")
