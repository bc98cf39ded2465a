"""The database file: durable, guarded against damage, and able to say that the disk is full."""

from __future__ import annotations

import sqlite3
import threading
import time
from pathlib import Path

import pytest

from tsbs_daw.core.errors import DaemonError, NoSpaceLeft
from tsbs_daw.queue.database import BALLAST_BYTES, Database, durability_pragmas

TABLES = "CREATE TABLE IF NOT EXISTS notes (text TEXT);\n"


def opened(path: Path) -> Database:
    return Database.open(path, TABLES, 1)


def add(database: Database, text: str) -> None:
    database.write(lambda connection: connection.execute("INSERT INTO notes VALUES (?)", (text,)))


def texts(database: Database) -> list[str]:
    return [row[0] for row in database.read("SELECT text FROM notes")]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "home" / "jobs.sqlite3"


def test_what_was_written_is_there_again(path):
    database = opened(path)
    add(database, "one")
    database.close()
    again = opened(path)
    assert texts(again) == ["one"]
    assert not again.rebuilt
    again.close()


def test_the_journal_is_the_safe_one_for_this_sqlite(path):
    assert durability_pragmas((3, 40, 1)) == ("PRAGMA journal_mode=DELETE", "PRAGMA synchronous=EXTRA")
    assert durability_pragmas((3, 51, 2)) == ("PRAGMA journal_mode=DELETE", "PRAGMA synchronous=EXTRA")
    assert durability_pragmas((3, 51, 3)) == ("PRAGMA journal_mode=WAL", "PRAGMA synchronous=FULL")
    database = opened(path)
    modern = sqlite3.sqlite_version_info >= (3, 51, 3)
    assert database.read("PRAGMA journal_mode")[0][0] == ("wal" if modern else "delete")
    assert database.read("PRAGMA synchronous")[0][0] == (2 if modern else 3)
    assert database.read("PRAGMA busy_timeout")[0][0] == 10_000
    database.close()


def test_a_failed_transaction_leaves_nothing(path):
    database = opened(path)

    def work(connection: sqlite3.Connection) -> None:
        connection.execute("INSERT INTO notes VALUES ('half')")
        raise ValueError("no more")

    with pytest.raises(ValueError, match="no more"):
        database.write(work)
    assert texts(database) == []
    add(database, "whole")
    assert texts(database) == ["whole"]
    database.close()


def test_a_full_disk_costs_the_ballast_first_and_is_reported_then(path):
    database = opened(path)
    assert database.ballast.stat().st_size == BALLAST_BYTES
    assert not database.short_of_space
    pages = database.read("PRAGMA page_count")[0][0]
    database.read(f"PRAGMA max_page_count={pages}")  # SQLite itself now says what it says on a full disk
    with pytest.raises(NoSpaceLeft, match=r"jobs\.sqlite3.*full"):
        add(database, "x" * 100_000)
    assert database.short_of_space
    assert not database.ballast.exists()
    database.read("PRAGMA max_page_count=1000000")
    add(database, "room again")
    assert texts(database) == ["room again"]
    assert database.restore_ballast()
    assert not database.short_of_space
    database.close()


def test_what_does_not_fit_is_tried_again_without_the_ballast(path):
    """The disk is full until the ballast is gone: the transaction that met the full disk succeeds."""
    database = opened(path)
    pages = database.read("PRAGMA page_count")[0][0]
    database.read(f"PRAGMA max_page_count={pages}")

    def work(connection: sqlite3.Connection) -> None:
        if not database.ballast.exists():
            connection.execute("PRAGMA max_page_count=1000000")
        connection.execute("INSERT INTO notes VALUES (?)", ("y" * 100_000,))

    database.write(work)
    assert len(texts(database)) == 1
    assert database.short_of_space
    database.close()


@pytest.mark.parametrize("damage", ["zeros", "text", "cut"])
def test_a_damaged_file_is_kept_aside_and_a_new_one_begun(path, damage):
    database = opened(path)
    rows = [(f"{number} " * 100,) for number in range(200)]
    database.write(lambda connection: connection.executemany("INSERT INTO notes VALUES (?)", rows))
    database.close()
    content = path.read_bytes()
    broken = {
        "zeros": b"\0" * 5000 + content[5000:],
        "text": b"not a database at all" * 100,
        "cut": content[: len(content) // 2],
    }
    path.write_bytes(broken[damage])
    again = opened(path)
    assert again.rebuilt
    assert texts(again) == []
    (kept,) = path.parent.glob("jobs.sqlite3.damaged-*")
    assert kept.read_bytes() == broken[damage]
    again.close()


def test_a_database_of_a_newer_version_is_refused(path):
    Database.open(path, TABLES, 7).close()
    with pytest.raises(DaemonError, match="newer version"):
        opened(path)


def test_a_lock_by_another_program_is_waited_for(path):
    database = opened(path)
    other = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    other.execute("BEGIN EXCLUSIVE")

    def let_go() -> None:
        time.sleep(0.3)
        other.execute("COMMIT")
        other.close()

    thread = threading.Thread(target=let_go)
    thread.start()
    add(database, "waited")
    thread.join()
    assert texts(database) == ["waited"]
    database.close()


def test_readers_see_what_is_committed_and_cannot_write(path):
    assert Database.open_for_reading(path) is None
    database = opened(path)
    add(database, "one")
    reader = Database.open_for_reading(path)
    assert texts(reader) == ["one"]
    with pytest.raises(sqlite3.OperationalError, match="readonly"):
        add(reader, "two")
    add(database, "three")
    assert texts(reader) == ["one", "three"]
    reader.close()
    database.close()
