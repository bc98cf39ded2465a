"""The queue's SQLite database: safe opening, atomic transactions, and a reserve for a full disk.

SQLite before 3.51.3 can reset a write-ahead log that is still needed. With those versions the rollback journal is used
with synchronous=EXTRA, which also syncs the directory, so a commit survives a power cut.

A ballast file of 8 MiB lies beside the database. When the disk is full, it is deleted to make room for pending writes.
Until it has been restored, `short_of_space` is true and the daemon starts no jobs.
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
BUSY_TIMEOUT_S = 10.0  # for PRAGMA busy_timeout
_SAFE_WAL = (3, 51, 3)

Outcome = TypeVar("Outcome")


class Database:
    """A connection to the database. Only the daemon's connection writes.

    Attributes:
        path: The database file.
        rebuilt: Whether the file was missing or damaged and a new one was created, to be filled from the spool.
    """

    def __init__(self, path: Path, connection: sqlite3.Connection, *, rebuilt: bool = False):
        self.path, self.rebuilt = path, rebuilt
        self._connection = connection

    @classmethod
    def open(
        cls, path: Path, tables: str, version: int, columns: Mapping[str, Iterable[str]] | None = None
    ) -> Database:
        """Open the database for writing. Creates missing tables; replaces a damaged file and keeps a backup of it.

        Args:
            path: The database file.
            tables: SQL that creates the tables if they do not exist.
            version: Version of these tables.
            columns: The columns that each table must have.

        Raises:
            DaemonError: Another version wrote the file, or it cannot be opened.
            NoSpaceLeft: The disk is full.
        """
        private_folder(path.parent, repair=False)
        damaged = not _is_healthy(path)
        if damaged:
            _put_aside(path)
        rebuilt = damaged or not path.exists() or not path.stat().st_size
        with contextlib.suppress(FileExistsError):  # it holds private paths; SQLite's other files inherit its mode
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
        connection = _connect(path)
        for pragma in durability_pragmas(sqlite3.sqlite_version_info):
            connection.execute(pragma)
        database = cls(path, connection, rebuilt=rebuilt)
        found = database.read("PRAGMA user_version")[0][0]
        if found > version:
            database.close()
            raise DaemonError(
                f"{shown(path)} was written by a newer version of tsbs-daw (tables {found}, this one knows {version}). "
                "Update tsbs-daw."
            )
        database._check_columns(columns or {}, found, version)
        database.restore_ballast()
        database.write(lambda connection: _create(connection, tables, version))
        return database

    @classmethod
    def open_for_reading(
        cls, path: Path, version: int = 1, columns: Mapping[str, Iterable[str]] | None = None
    ) -> Database | None:
        """Open the database for reading, in any process other than the daemon.

        The file is opened writable, because only a writable connection can roll back what a killed daemon left. The
        connection is then switched to read-only.

        Args:
            path: The database file.
            version: Version of the tables that this program knows.
            columns: The columns that each table must have.

        Returns:
            The database; None if it does not exist yet or its tables are still being created.

        Raises:
            DaemonError: The database is damaged, cannot be opened, or was written by another version.
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
                f"Cannot read the job database {shown(path)} ({error}). The daemon repairs it at its next start."
            ) from error
        database.close()
        return None

    def _check_columns(self, columns: Mapping[str, Iterable[str]], found: int, version: int) -> None:
        """Check that existing tables have these columns.

        Raises:
            DaemonError: A table exists but lacks some of its columns.
        """
        for table, needed in columns.items():
            there = {row["name"] for row in self.read(f"PRAGMA table_info({table})")}
            missing = sorted(set(needed) - there) if there else []
            if missing:
                self.close()
                raise DaemonError(
                    f"{shown(self.path)} was written by another version of tsbs-daw (tables {found}, this one writes "
                    f"{version}): `{table}` lacks {', '.join(missing)}. Use that version, or move the file away to "
                    "rebuild the queue from the spool."
                )

    def close(self) -> None:
        self._connection.close()

    @property
    def writable(self) -> bool:
        """Whether a transaction can be committed now. Tries one."""
        try:
            version = self.read("PRAGMA user_version")[0][0]
            self.write(lambda connection: connection.execute(f"PRAGMA user_version={version}"))
            return True
        except (sqlite3.DatabaseError, NoSpaceLeft):
            return False

    def read(self, sql: str, parameters: tuple[Any, ...] | dict[str, Any] = ()) -> list[sqlite3.Row]:
        return self._connection.execute(sql, parameters).fetchall()

    def write(self, work: Callable[[sqlite3.Connection], Outcome]) -> Outcome:
        """Run `work` in one transaction. When this returns, its changes are on the disk; if it raises, none are.

        Args:
            work: Receives the connection. If the disk is full, it is called again after the ballast is deleted.

        Returns:
            The return value of `work`.

        Raises:
            NoSpaceLeft: The disk is full, even without the ballast.
        """
        try:
            return self._transaction(work)
        except sqlite3.OperationalError as error:
            if not _is_full(error):
                raise
            log.error("%s: the disk is full; deleting the ballast file to make room", self.path)
        self.ballast.unlink(missing_ok=True)
        try:
            return self._transaction(work)
        except sqlite3.OperationalError as error:
            if _is_full(error):
                raise NoSpaceLeft(
                    f"The disk of {shown(self.path)} is full. Free some space; the queue waits until then."
                ) from error
            raise

    def _transaction(self, work: Callable[[sqlite3.Connection], Outcome]) -> Outcome:
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            outcome = work(self._connection)
            self._connection.execute("COMMIT")
            return outcome
        except BaseException:
            if self._connection.in_transaction:  # SQLite may have rolled back already, for example on a full disk
                self._connection.execute("ROLLBACK")
            raise

    @property
    def ballast(self) -> Path:
        return self.path.with_name(self.path.name + ".ballast")

    @property
    def short_of_space(self) -> bool:
        return not self.ballast.exists()

    def restore_ballast(self) -> bool:
        """Restore the ballast file if at least twice its size is free. Return whether it exists."""
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
            log.warning("cannot write the ballast file beside %s: %s", self.path, error)
            temporary.unlink(missing_ok=True)
            return False
        return True


def _connect(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, timeout=BUSY_TIMEOUT_S, isolation_level=None)
    connection.row_factory = sqlite3.Row
    return connection


def durability_pragmas(sqlite_version: tuple[int, ...]) -> tuple[str, str]:
    """Return the pragmas that make a commit survive a power cut with this version of SQLite."""
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
                f"Cannot open the job database {shown(path)} ({error}). Check whether another program is using it."
            ) from error
        return False
    finally:
        if connection is not None:
            connection.close()


def _put_aside(path: Path) -> None:
    """Rename the damaged file and its journal files, to keep them for inspection."""
    suffix = f".damaged-{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}"
    for part in (path, *(path.with_name(path.name + ending) for ending in ("-journal", "-wal", "-shm"))):
        if part.exists():
            part.replace(part.with_name(part.name + suffix))
    log.error("%s is damaged; keeping it as %s%s and rebuilding the queue from the spool", path, path.name, suffix)


def comes_and_goes(error: sqlite3.DatabaseError) -> bool:
    """Whether an error concerns the disk and may be temporary: full, read-only, failing, unavailable, or locked."""
    passing = ("full", "disk I/O error", "readonly database", "unable to open database file", "locked")
    return isinstance(error, sqlite3.OperationalError) and any(words in str(error) for words in passing)


def _is_full(error: sqlite3.OperationalError) -> bool:
    return "full" in str(error)
