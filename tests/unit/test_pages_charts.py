"""Charts are pure functions: whatever the figures, what comes out is drawable and says the same."""

from __future__ import annotations

import math
import re
from datetime import datetime, timedelta, timezone
from xml.etree import ElementTree

import pytest
from automate_pages.charts import Series, bars, compact, lines, nice_maximum
from automate_pages.activity import SPANS, item_charts, spread
from automate_kernel.outbox import Activity

NOW = datetime(2025, 3, 4, 3, 12, 40, tzinfo=timezone.utc)


def drawn(chart):
    """The drawing as XML; it must be well-formed and finite, and hold no style and no script."""
    root = ElementTree.fromstring(str(chart.svg))
    for element in root.iter():
        assert element.tag in {"svg", "desc", "g", "title", "rect", "line", "path"}
        assert not {"style", "onload", "onclick", "href"} & set(element.attrib)
        for name in {"x", "y", "width", "height"} & set(element.attrib):
            assert math.isfinite(float(element.attrib[name]))
            assert -0.1 <= float(element.attrib[name]) <= 600.1
        if "d" in element.attrib:
            numbers = re.findall(r"-?\d+(?:\.\d+)?", element.attrib["d"])
            assert all(-0.1 <= float(number) <= 600.1 for number in numbers)
            assert "nan" not in element.attrib["d"]
    return root


@pytest.mark.parametrize("draw", [bars, lines])
@pytest.mark.parametrize(
    "labels, values", [([], []), (["03:00"], [None]), (["a", "b"], [None, None])]
)
def test_no_figures_are_an_empty_chart(draw, labels, values):
    chart = draw("T", labels, [Series("s", values)])

    assert chart.empty
    assert "No figures yet" in chart.description
    drawn(chart)


def test_a_single_point_is_a_dot_and_not_nothing():
    chart = lines("T", ["03:00"], [Series("p50", [2.0])])

    paths = [one.attrib["d"] for one in drawn(chart).iter("path")]
    assert paths == ["M300 0h0"]
    assert chart.rows == [("03:00", ["2"])]


def test_a_gap_breaks_the_line_and_is_not_drawn_as_zero():
    chart = lines("T", list("abcde"), [Series("p50", [1.0, 2.0, None, None, 1.0])])

    (path,) = [one.attrib["d"] for one in drawn(chart).iter("path")]
    assert path.count("M") == 2
    assert path.count("L") == 1
    assert path.endswith("h0")
    assert [label for label, _ in chart.rows] == ["a", "b", "e"]


def test_huge_small_and_unreal_numbers_stay_within_the_drawing():
    values = [1e300, 1.0, 0.0, math.nan, math.inf, -5.0]
    for draw in (bars, lines):
        chart = draw("T", list("abcdef"), [Series("s", values)])
        drawn(chart)
        assert "nan" not in str(chart.svg)
        assert "inf" not in str(chart.svg).replace("info", "")


def test_bars_stand_on_each_other_and_their_heights_are_their_shares():
    chart = bars("T", ["a"], [Series("ok", [30.0], "ok"), Series("bad", [10.0], "bad")])

    low, high = drawn(chart).iter("rect")
    assert (low.attrib["data-tone"], high.attrib["data-tone"]) == ("ok", "bad")
    assert float(low.attrib["height"]) == pytest.approx(3 * float(high.attrib["height"]))
    assert float(high.attrib["y"]) + float(high.attrib["height"]) == pytest.approx(
        float(low.attrib["y"])
    )


def test_names_are_escaped_wherever_they_show():
    evil = "<script>alert(1)</script>\"'"
    chart = bars(evil, [evil], [Series(evil, [1.0], evil)])

    assert "<script" not in str(chart.svg)
    assert drawn(chart).find(".//{*}title") is not None or "title" in str(chart.svg)


def test_who_cannot_see_it_is_told_the_peak_and_the_figures():
    chart = bars("Attempts", ["03:10", "03:11"], [Series("failed", [5.0, 9.0], "bad")])

    assert chart.description == "failed: at most 9, at 03:11."
    root = drawn(chart)
    assert root.attrib["role"] == "img"
    assert root.attrib["aria-label"] == "Attempts"
    assert root.find("desc").text == chart.description
    assert chart.rows == [("03:10", ["5"]), ("03:11", ["9"])]


@pytest.mark.parametrize(
    "value, text",
    [
        (0, "0"), (0.25, "0.25"), (7, "7"), (950, "950"), (999.9, "1k"), (1234, "1.23k"),
        (39_800, "39.8k"), (4_000_000, "4M"), (2.5e9, "2.5G"), (7e15, "7e+15"),
        (math.inf, "–"), (math.nan, "–"),
    ],
)  # fmt: skip
def test_numbers_are_written_in_few_characters(value, text):
    assert compact(value) == text


@pytest.mark.parametrize(
    "values, top", [([], 1), ([0], 1), ([7], 10), ([11], 20), ([230], 250), ([1e-6], 1e-6)]
)
def test_an_axis_ends_at_a_round_number(values, top):
    assert nice_maximum(values) == pytest.approx(top)


# -- what workers did ------------------------------------------------------------------------------


def at(minutes_ago: int, **counts: int) -> Activity:
    moment = NOW.replace(second=0) - timedelta(minutes=minutes_ago)
    return Activity(
        moment, counts.pop("kind", "k"), **counts, run_buckets={-10: 4}, wait_buckets={}
    )


def test_minutes_without_work_are_gaps_and_kinds_add_up():
    entries = spread([at(2, completed=3), at(2, completed=4), at(0, failed=1)], SPANS["1h"], NOW)

    assert len(entries) == 60
    assert [one and one.total for _, one in entries[-4:]] == [None, 7, None, 1]
    assert entries[-1][0] == NOW.replace(second=0)


def test_a_step_of_a_day_gathers_its_minutes():
    entries = spread([at(1, completed=3), at(11, completed=4)], SPANS["24h"], NOW)

    assert len(entries) == 48
    assert entries[-1][1].completed == 7


def test_all_charts_can_be_drawn_of_nothing_and_of_something():
    for activity in ([], [at(3, completed=5, retried=1)]):
        for chart in item_charts(spread(activity, SPANS["1h"], NOW), SPANS["1h"]):
            drawn(chart)
            assert chart.empty == (not activity) or chart.title.startswith("Wait")
