"""A table of answers that a stranger sent is read, or refused; it is never changed."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from dpsd.errors import RunError
from dpsd.federated.client.answers import SCHEMA, AnswerTable, RoundRows
from dpsd.federated.client.stored import check_plain, read_rounds


@pytest.fixture
def table(tmp_path: Path) -> AnswerTable:
    made = AnswerTable(tmp_path / "100% ours?mode=rwc#1.sqlite")
    made.begin(1, [b"a", b"b"], [b"1", b"2"])
    made.store([b"a", b"b"], [b"3", b"4"])
    made.begin(2, [b"c"], [b""])
    return made


def test_what_is_read_is_what_the_client_knows(table: AnswerTable) -> None:
    found = read_rounds(table.path)
    counts = {index: RoundRows(rows.asked, rows.released) for index, rows in found.items()}
    assert counts == table.rounds()
    assert all(rows.sha256 == table.sha256(index) for index, rows in found.items())
    assert list(table.path.parent.iterdir()) == [table.path], "nothing is created"


@pytest.mark.parametrize(
    "change",
    [
        "CREATE VIEW endless AS WITH RECURSIVE n(i) AS (VALUES(1) UNION ALL SELECT i FROM n) "
        "SELECT i FROM n",
        "CREATE TABLE more (note TEXT)",
        "CREATE TRIGGER t AFTER INSERT ON answers BEGIN DELETE FROM answers; END",
        "ALTER TABLE answers RENAME COLUMN release TO released",
        "DROP TABLE answers",
        "UPDATE answers SET digest = 'text' WHERE round = 2",
        "UPDATE answers SET round = 'first' WHERE round = 2",
        "UPDATE answers SET release = 1.5 WHERE round = 1",
        "PRAGMA journal_mode = WAL",
    ],
)
def test_what_no_client_makes_is_refused(table: AnswerTable, change: str) -> None:
    with closing(sqlite3.connect(table.path)) as connection:
        connection.execute(change)
        connection.commit()
    before = table.path.read_bytes()
    with pytest.raises(RunError, match="cannot be read"):
        read_rounds(table.path)
    assert table.path.read_bytes() == before
    assert list(table.path.parent.iterdir()) == [table.path], "nothing is created"


def test_a_view_in_place_of_the_table_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "answers.sqlite"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(
            "CREATE VIEW answers(digest, round, candidates, release) AS WITH RECURSIVE n(i) AS "
            "(VALUES(1) UNION ALL SELECT i FROM n) SELECT x'00', i, x'00', x'00' FROM n"
        )
    with pytest.raises(RunError, match="something else"):
        read_rounds(path)


def test_links_and_missing_files_are_refused(table: AnswerTable, tmp_path: Path) -> None:
    link = tmp_path / "link.sqlite"
    link.symlink_to(table.path)
    for path, words in ((link, "no link"), (tmp_path, "must be a file"), (tmp_path / "no", "No")):
        with pytest.raises(RunError, match=words):
            read_rounds(path)
    assert not (tmp_path / "no").exists()
    check_plain(tmp_path / "no")  # what is not there yet is not wrong


def test_a_schema_is_what_sqlite_keeps_of_it(table: AnswerTable) -> None:
    with closing(sqlite3.connect(table.path)) as connection:
        assert connection.execute("SELECT sql FROM sqlite_master").fetchall() == [(SCHEMA,)]
