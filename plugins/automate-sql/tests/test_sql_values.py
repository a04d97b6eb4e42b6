"""The JSON forms of values, as real databases return them."""

from __future__ import annotations

import pytest

_POSTGRESQL = {
    "CAST('{\"a\": [1]}' AS jsonb)": {"a": [1]},
    "CAST('\"text\"' AS json)": "text",
    "CAST('1234567890123456789012.50' AS numeric)": "1234567890123456789012.50",
    "DATE '2026-11-05'": "2026-11-05",
    "TIMESTAMP '2026-11-05 10:11:12.5'": "2026-11-05T10:11:12.500000",
    "TIMESTAMPTZ '2026-11-05 10:11:12+00'": "2026-11-05T10:11:12+00:00",
    "INTERVAL '1 day 2 hours'": "P1DT2H0M0S",
    "CAST('00000000-0000-0000-0000-00000000000a' AS uuid)": "00000000-0000-0000-0000-00000000000a",
    "ARRAY[1, 2]": [1, 2],
    "CAST('NaN' AS double precision)": "nan",
    "true": True,
}
_MARIADB = {
    "CAST('12.50' AS DECIMAL(12, 2))": "12.50",
    "CAST('2026-11-05' AS DATE)": "2026-11-05",
    "CAST('2026-11-05 10:11:12' AS DATETIME)": "2026-11-05T10:11:12",
    "CAST('26:00:00' AS TIME)": "P1DT2H0M0S",
    "JSON_OBJECT('a', 1)": '{"a": 1}',
}


def test_values_become_json(database, make):
    url, engine = database
    expected = {"postgresql": _POSTGRESQL, "mysql": _MARIADB}.get(engine.dialect.name)
    if expected is None:
        pytest.skip("SQLite has no types of its own for these")
    columns = ", ".join(f"{text} AS c{n}" for n, text in enumerate(expected))
    if engine.dialect.name == "postgresql":
        columns += ", current_setting('TimeZone') AS zone"
    (row,) = make(url).invoke("sql.query", {"query": f"SELECT {columns}"})["rows"]
    row.pop("zone", None)
    assert dict(zip(expected, row.values(), strict=True)) == expected


def test_bytes_come_back(database, make):
    query = "SELECT :data AS data"
    if database[1].dialect.name == "postgresql":
        query = "SELECT CAST(:data AS bytea) AS data"
    data = {"base64": "AP8="}
    found = make(database[0]).invoke("sql.query", {"query": query, "params": {"data": data}})
    assert found["rows"] == [{"data": data}]
