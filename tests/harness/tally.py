"""Counts what faults did to songs: the figures of docs/results/faults.json, and what a fault case asserts at its end.

A case tells the tally of each fault as it makes it, and of each place in which the faults have ended. What the tally
finds there is counted over all repetitions, whether the case passes or not.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Collection
from dataclasses import asdict, dataclass
from pathlib import Path

from harness.stage import lines

from tsbs_daw.contracts.job import State
from tsbs_daw.contracts.manifest import FILE_NAME
from tsbs_daw.core.config import Settings
from tsbs_daw.pipeline.publish import read_manifest
from tsbs_daw.queue.store import JobStore

ORPHANS_END_S = 30.0  # a process whose daemon is gone has noticed it by then, on the busiest machine


@dataclass
class Tally:
    """What one case did and found.

    Attributes:
        faults: How often the case did its deed: kills, full disks, songs that went away.
        lost: Songs that were acknowledged and have no stems, beside those that were to have none.
        twice: Stems that were published again, under the same name or another.
        partial: Folders that a user sees whose files are not what their manifest says.
        orphans: Temporary folders, folders of jobs that have ended, and processes that outlive their daemon.
        cached: What is in the cache and can never be used.
    """

    faults: int = 0
    lost: int = 0
    twice: int = 0
    partial: int = 0
    orphans: int = 0
    cached: int = 0

    @property
    def found(self) -> dict[str, int]:
        """What must not be, by its name."""
        return {name: count for name, count in asdict(self).items() if name != "faults" and count}

    def count_output(self, output: Path, wanted: Collection[str], *, exactly: bool = True) -> None:
        """Compare what lies below an output folder with what should, where no job runs.

        Args:
            output: The folder of the stem sets.
            wanted: The name of each set that has to be there, once.
            exactly: Whether every other set is one too many.
        """
        sets = _sets_below(output)
        there = Counter(path.name for path in sets)
        self.lost += sum((Counter(wanted) - there).values())
        if exactly:
            self.twice += sum((there - Counter(wanted)).values())
        self.partial += sum(not _complete(path) for path in sets)
        self.orphans += sum(1 for _ in output.rglob(".tmp-*"))

    def count_home(self, settings: Settings) -> None:
        """Count what is left in a home after its daemon has ended."""
        self.twice += sum(count - 1 for count in Counter(map(_publication, lines(settings, "published.log"))).values())
        self.orphans += len(_ownerless_folders(settings)) + len(_processes_left(settings))
        self.cached += len(_unusable_in_cache(settings.cache))

    def count(self, settings: Settings, output: Path, wanted: Collection[str], *, exactly: bool = True) -> None:
        """Both: for a place where all is over."""
        self.count_output(output, wanted, exactly=exactly)
        self.count_home(settings)


def _publication(line: str) -> str:
    """What a line of published.log is about: the job, its folder and content, whichever run of it wrote the line."""
    job, _, what = line.split(" ", 2)
    return f"{job} {what}"


def _sets_below(output: Path) -> list[Path]:
    """The folders with files in them that a user sees."""
    folders = [path for path in output.rglob("*") if path.is_dir()]
    return [
        path
        for path in folders
        if not any(part.startswith(".") for part in path.relative_to(output).parts)
        and any(file.is_file() for file in path.iterdir())
    ]


def _complete(folder: Path) -> bool:
    manifest = read_manifest(folder)
    if manifest is None:
        return False
    named = {FILE_NAME: None} | {entry.file: entry.size_bytes for entry in manifest.stems}
    sizes = {name: (folder / name).stat().st_size for name in named if (folder / name).is_file()}
    return sizes.keys() == named.keys() and all(size in (None, sizes[name]) for name, size in named.items())


def _ownerless_folders(settings: Settings) -> set[str]:
    """Folders of the spool that belong to no job that waits or runs."""
    there = {path.name for path in (settings.spool / "jobs").glob("*")}
    store = JobStore.open_for_reading(settings.store) if there else None
    if store is None:
        return there
    live = {row.id for row in store.rows([state for state in State if not state.finished])}
    store.close()
    return there - live


def _processes_left(settings: Settings) -> list[Path]:
    """Processes that log into this home; none of their daemons lives."""
    end_s = time.monotonic() + ORPHANS_END_S
    while (found := _processes_of(settings.home)) and time.monotonic() < end_s:
        time.sleep(0.05)
    return found


def _processes_of(home: Path) -> list[Path]:
    found = []
    for link in Path("/proc").glob("[0-9]*/fd/2"):
        try:
            if home.resolve() in link.readlink().parents:
                found.append(link)
        except OSError:  # it has ended, or is another user's
            continue
    return found


def _unusable_in_cache(cache: Path) -> list[Path]:
    """Folders without the file that is written last, and whatever is called temporary."""
    entries = [path for path in (cache / "stems").glob("*") if path.is_dir()]
    return [path for path in entries if path.name.startswith(".") or not (path / "separation.json").is_file()]
