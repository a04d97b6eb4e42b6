"""Hostile values as parameters, in comments, in quotations and as names, on each database."""

from __future__ import annotations

import csv
import io
import json
import os
import shutil

import pytest
import sqlalchemy as sa
from automate_kernel import ErrorCodes
from automate_testing import HostileValuesContract


@pytest.mark.parametrize("database", ["pysqlite", "psycopg", "pymysql"], indirect=True)
class TestSql(HostileValuesContract):
    places = (
        "parameter", "parameter in a list", "comment in a line", "comment", "quotation", "table",
        "column", "key",
    )  # fmt: skip
    refusals = (ErrorCodes.INVALID_ARGUMENT, ErrorCodes.NOT_FOUND)
    accepts = {"parameter": {"latin", "astral", "crlf", "sql_apostrophe", "sql_parameters", "long"}}
    mixtures = 10

    @pytest.fixture(autouse=True)
    def _database(self, database, make):
        url, self.engine = database
        self.kernel = make(url)

    def call(self, name, **given):
        return self.kernel.invoke(f"sql.{name}", given, literal=True)

    def carry(self, place, value):
        found = None
        match place:
            case "parameter":
                query = "SELECT id, :v AS v FROM item WHERE id = 1"
                (row,) = self.call("query", query=query, params={"v": value})["rows"]
                found = row.pop("v")
            case "parameter in a list":
                query = "SELECT id FROM item WHERE name IN :names"
                names = {"names": ["item 1", value]}
                (row,) = self.call("query", query=query, params=names)["rows"]
            case "comment in a line":
                query = f"SELECT id FROM item -- {value}\nWHERE id = 1"
                (row,) = self.call("query", query=query, params={})["rows"]
            case "comment":
                query = f"SELECT id FROM item /* {value} */ WHERE id = 1"
                (row,) = self.call("query", query=query, params={})["rows"]
            case "quotation":
                text = value.replace("'", "''")
                query = f"SELECT id, '{text}' AS v FROM item WHERE id = 1"
                (row,) = self.call("query", query=query, params={})["rows"]
                del row["v"]
            case "table":
                asked = "item" if value == self.harmless else value
                row = self.call("page", table=asked, columns=["id"], key="id", max_rows=1)
            case _:
                asked = "id" if value == self.harmless else value
                given = {"columns": ["id"], "key": "id", place + "s" * (place == "column"): asked}
                if place == "column":
                    given["columns"] = [asked]
                row = self.call("page", table="item", **given, max_rows=1)
        with self.engine.connect() as connection:
            names = connection.execute(sa.text("SELECT name FROM item ORDER BY id")).scalars()
            tables = sorted(sa.inspect(self.engine).get_table_names())
            return found, (row, list(names), tables)

    def same(self, place, value, arrived):
        return arrived == value if place == "parameter" else True


@pytest.mark.parametrize("database", ["pysqlite"], indirect=True)
class TestFiles(HostileValuesContract):
    """Names and cells of exported files."""

    places = ("name", "cell of CSV", "line of JSON")
    accepts = {
        "name": {"latin", "astral", "formula"},
        "cell of CSV": {"crlf", "quote", "comma", "line_separator"},
        "line of JSON": {"crlf", "quote", "line_separator"},
    }

    @pytest.fixture(autouse=True)
    def _database(self, database, make, tmp_path):
        self.folder = tmp_path / "files"
        self.kernel = make(database[0], files_to=str(self.folder))

    def carry(self, place, value):
        shutil.rmtree(self.folder, ignore_errors=True)
        query = "SELECT id, :v AS v FROM item WHERE id < 3"
        given = {"query": query, "params": {"v": "x"}, "file": "f"}
        if place == "name":
            given["file"] = value
        else:
            given |= {"params": {"v": value}, "format": "csv" if "CSV" in place else "jsonl"}
        self.kernel.invoke("sql.export", given, literal=True)
        (path,) = (each for each in self.folder.rglob("*") if each.is_file())
        raw = path.read_bytes().decode()
        if place == "name":
            return str(path.relative_to(self.folder)), (raw, os.listdir(self.folder.parent))
        if place == "cell of CSV":
            names, *rows = csv.reader(io.StringIO(raw, newline=""))
        else:
            found = [json.loads(line) for line in raw.split("\n") if line]
            names, rows = list(found[0]), [list(each.values()) for each in found]
        assert rows[0][1] == rows[1][1]
        return rows[0][1], (names, [str(row[0]) for row in rows], path.name)

    def same(self, place, value, arrived):
        return arrived == (os.path.normpath(value) if place == "name" else value)
