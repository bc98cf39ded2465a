"""The database file under the queue: opened safely, written in whole transactions, able to report a full disk.

SQLite before 3.51.3 can reset a write-ahead log that is still needed, so there the rollback journal is used, with
synchronous=EXTRA: the directory is synced too, and a commit survives a power cut.

A ballast file of 8 MiB lies beside the database. When the disk is full it is deleted, which leaves room to write down
what happened; until it can be put back, `short_of_space` asks the daemon to start nothing new.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import sqlite3
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from tsbs_daw.core.errors import DaemonError, NoSpaceLeft, shown
from tsbs_daw.core.files import private_folder

log = logging.getLogger(__name__)

BALLAST_BYTES = 8 * 1024 * 1024
BUSY_TIMEOUT_S = 10.0  # what PRAGMA busy_timeout is set to
_SAFE_WAL = (3, 51, 3)

Outcome = TypeVar("Outcome")


class Database:
    """One connection. The daemon holds the only one that writes.

    rebuilt: there was no file, or a damaged one that has been put aside; its content must be gathered again
    """

    def __init__(self, path: Path, connection: sqlite3.Connection, *, rebuilt: bool = False):
        self.path, self.rebuilt = path, rebuilt
        self._connection = connection

    @classmethod
    def open(
        cls, path: Path, tables: str, version: int, columns: Mapping[str, Iterable[str]] | None = None
    ) -> Database:
        """Open for writing; create what is missing; put a damaged file aside and begin a new one.

        Args:
            path: The file.
            tables: SQL that creates the tables where they do not exist.
            version: Of these tables.
            columns: By table, those that it must have.

        Raises:
            DaemonError: It was written by another version.
            NoSpaceLeft: Not even an empty database fits.
        """
        private_folder(path.parent, repair=False)
        damaged = not _is_healthy(path)
        if damaged:
            _put_aside(path)
        rebuilt = damaged or not path.exists() or not path.stat().st_size
        with contextlib.suppress(FileExistsError):  # it holds names and paths; SQLite's other files take its mode
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
        connection = _connect(path)
        for pragma in durability_pragmas(sqlite3.sqlite_version_info):
            connection.execute(pragma)
        database = cls(path, connection, rebuilt=rebuilt)
        found = database.read("PRAGMA user_version")[0][0]
        if found > version:
            database.close()
            raise DaemonError(
                f"{shown(path)} was written by a newer version of tsbs-daw (tables {found}, this one knows {version}); "
                "update tsbs-daw."
            )
        database._check_columns(columns or {}, found, version)
        database.restore_ballast()
        database.write(lambda connection: _create(connection, tables, version))
        return database

    @classmethod
    def open_for_reading(
        cls, path: Path, version: int = 1, columns: Mapping[str, Iterable[str]] | None = None
    ) -> Database | None:
        """For everyone but the daemon; None when there is no database yet, or its tables are being made.

        It is opened writable, because only such a connection may roll back what a killed daemon left, and then told
        to write nothing. Raises: DaemonError: damaged, or not to be opened
        """
        if not path.is_file():
            return None
        try:
            database = cls(path, _connect(path))
            database.read("PRAGMA query_only=ON")
            if (found := database.read("PRAGMA user_version")[0][0]) > 0:
                database._check_columns(columns or {}, found, version)
                return database
        except sqlite3.DatabaseError as error:
            raise DaemonError(
                f"The job database {shown(path)} cannot be read ({error}); the daemon repairs it when it starts."
            ) from error
        database.close()
        return None

    def _check_columns(self, columns: Mapping[str, Iterable[str]], found: int, version: int) -> None:
        """Raises: DaemonError: a table of that name is there, and lacks some"""
        for table, needed in columns.items():
            there = {row["name"] for row in self.read(f"PRAGMA table_info({table})")}
            missing = sorted(set(needed) - there) if there else []
            if missing:
                self.close()
                raise DaemonError(
                    f"{shown(self.path)} was written by another version of tsbs-daw (tables {found}, this one writes "
                    f"{version}): `{table}` lacks {', '.join(missing)}. Use the other version, or move the file away; "
                    "the queue is then built again from the spool."
                )

    def close(self) -> None:
        self._connection.close()

    @property
    def writable(self) -> bool:
        """Whether a transaction reaches the disk now."""
        try:
            version = self.read("PRAGMA user_version")[0][0]
            self.write(lambda connection: connection.execute(f"PRAGMA user_version={version}"))
            return True
        except (sqlite3.DatabaseError, NoSpaceLeft):
            return False

    def read(self, sql: str, parameters: tuple[Any, ...] | dict[str, Any] = ()) -> list[sqlite3.Row]:
        return self._connection.execute(sql, parameters).fetchall()

    def write(self, work: Callable[[sqlite3.Connection], Outcome]) -> Outcome:
        """Run `work` in one transaction: all of it is on the disk when this returns, or nothing is.

        Raises: NoSpaceLeft: the disk is full, even without the ballast
        """
        try:
            return self._transaction(work)
        except sqlite3.OperationalError as error:
            if not _is_full(error):
                raise
            log.error("%s: the disk is full; the ballast is dropped to write this down", self.path)
        self.ballast.unlink(missing_ok=True)
        try:
            return self._transaction(work)
        except sqlite3.OperationalError as error:
            if _is_full(error):
                raise NoSpaceLeft(
                    f"The disk of {shown(self.path)} is full. Free some space; the queue waits for it."
                ) from error
            raise

    def _transaction(self, work: Callable[[sqlite3.Connection], Outcome]) -> Outcome:
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            outcome = work(self._connection)
            self._connection.execute("COMMIT")
            return outcome
        except BaseException:
            if self._connection.in_transaction:  # a full disk may have rolled it back already
                self._connection.execute("ROLLBACK")
            raise

    @property
    def ballast(self) -> Path:
        return self.path.with_name(self.path.name + ".ballast")

    @property
    def short_of_space(self) -> bool:
        return not self.ballast.exists()

    def restore_ballast(self) -> bool:
        """Put the ballast back if there is room for it twice over."""
        if self.ballast.exists():
            return True
        if shutil.disk_usage(self.path.parent).free < 2 * BALLAST_BYTES:
            return False
        temporary = self.ballast.with_name(self.ballast.name + ".tmp")
        try:
            with temporary.open("wb") as file:
                for _ in range(8):
                    file.write(bytes(BALLAST_BYTES // 8))
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(self.ballast)
        except OSError as error:
            log.warning("the ballast beside %s cannot be written: %s", self.path, error)
            temporary.unlink(missing_ok=True)
            return False
        return True


def _connect(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, timeout=BUSY_TIMEOUT_S, isolation_level=None)
    connection.row_factory = sqlite3.Row
    return connection


def durability_pragmas(sqlite_version: tuple[int, ...]) -> tuple[str, str]:
    """Journal and syncing such that a commit survives a power cut, with this SQLite."""
    if sqlite_version >= _SAFE_WAL:
        return "PRAGMA journal_mode=WAL", "PRAGMA synchronous=FULL"
    return "PRAGMA journal_mode=DELETE", "PRAGMA synchronous=EXTRA"


def _create(connection: sqlite3.Connection, tables: str, version: int) -> None:
    for statement in tables.split(";\n"):  # executescript would commit the transaction
        if statement.strip():
            connection.execute(statement)
    connection.execute(f"PRAGMA user_version={version}")


def _is_healthy(path: Path) -> bool:
    if not path.exists():
        return True
    connection = None
    try:
        connection = sqlite3.connect(path, timeout=BUSY_TIMEOUT_S)
        return bool(connection.execute("PRAGMA quick_check(1)").fetchone()[0] == "ok")
    except sqlite3.DatabaseError as error:
        if isinstance(error, sqlite3.OperationalError):  # locked, or not permitted: not damaged
            raise DaemonError(
                f"The job database {shown(path)} cannot be opened ({error}). Check whether another program uses it."
            ) from error
        return False
    finally:
        if connection is not None:
            connection.close()


def _put_aside(path: Path) -> None:
    """Keep the damaged file, and its journal, for whoever wants to look into it."""
    suffix = f".damaged-{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}"
    for part in (path, *(path.with_name(path.name + ending) for ending in ("-journal", "-wal", "-shm"))):
        if part.exists():
            part.replace(part.with_name(part.name + suffix))
    log.error("%s is damaged; it is kept as %s%s and built again from the spool", path, path.name, suffix)


def comes_and_goes(error: sqlite3.DatabaseError) -> bool:
    """Whether SQLite tells of its disk, not of its file: full, read-only, failing, or gone for a while."""
    passing = ("full", "disk I/O error", "readonly database", "unable to open database file", "locked")
    return isinstance(error, sqlite3.OperationalError) and any(words in str(error) for words in passing)


def _is_full(error: sqlite3.OperationalError) -> bool:
    return "full" in str(error)
