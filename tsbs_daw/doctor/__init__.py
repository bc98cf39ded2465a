"""Checks this machine by running each part of the program, and gives advice on what does not work.

Light checks run in this process. Whatever could crash it (a driver, a kernel, a broken wheel) runs in a child, `probe`.
A check that fails unexpectedly is reported as a finding and never ends the doctor.
"""

from __future__ import annotations

import importlib.metadata
import logging
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from enum import Enum
from pathlib import Path
from typing import Any

from tsbs_daw.core import child, machine
from tsbs_daw.core.config import Settings
from tsbs_daw.core.errors import ClusterUnavailable, described, shown
from tsbs_daw.integrations.reaper_application import usual_folder

log = logging.getLogger(__name__)

PROBE_LIMIT_S = 300.0
NEEDED_MEMORY_BYTES = 2_000_000_000  # one job needs less than 1.5 GB, and the system needs some
NEEDED_DISK_BYTES = 2_000_000_000  # a song of 10 minutes gives about 1 GB of float stems and cached stems


class Status(str, Enum):
    """The severity of a finding."""

    OK = "ok"
    NOTE = "note"  # worth knowing; everything needed works without it
    PROBLEM = "problem"


@dataclass(frozen=True)
class Finding:
    """One line of the report.

    Attributes:
        topic: What was checked.
        status: Severity.
        what: What was found.
        advice: What to do. Every problem has advice.
    """

    topic: str
    status: Status
    what: str
    advice: str = ""


@dataclass(frozen=True)
class Report:
    """All findings."""

    findings: tuple[Finding, ...]

    @property
    def ok(self) -> bool:
        return all(finding.status is not Status.PROBLEM for finding in self.findings)

    def to_dict(self) -> dict[str, Any]:
        return {
            "schema": 1,
            "ok": self.ok,
            "machine": machine.describe(),
            "findings": [asdict(f) for f in self.findings],
        }


def examine(settings: Settings, model: str = "default", cluster: str | None = None) -> Iterator[Finding]:
    """Run all checks and yield each finding as soon as it is known. Slow checks run last.

    Args:
        settings: Folders and device.
        model: Model to check.
        cluster: Address of a Ray cluster whose nodes are checked, too.
    """
    checks: list[tuple[str, Callable[[], Iterable[Finding]]]] = [
        ("python", _python),
        ("packages", _packages),
        ("folders", lambda: _folders(settings)),
        ("space", lambda: _space(settings)),
        ("memory", _memory),
        ("locks", lambda: _locks(settings)),
        ("daemon", lambda: _daemon(settings)),
        ("REAPER", _reaper),
        ("imports", lambda: _probe("imports", settings, model)),
        ("device", lambda: _probe("device", settings, model)),
        ("job", lambda: _probe("job", settings, model)),
    ]
    if cluster is not None:
        checks.append(("cluster", lambda: _cluster(cluster, settings, model)))
    for topic, check in checks:
        yield from _caught(topic, check)


def _caught(topic: str, check: Callable[[], Iterable[Finding]]) -> Iterator[Finding]:
    try:
        yield from check()
    except Exception as error:  # the doctor's only boundary: an unexpected error is a finding, too
        log.exception("the check of %s failed", topic)
        yield Finding(
            topic, Status.PROBLEM, f"The check itself failed ({described(error)}).", "Please report this line."
        )


def _python() -> Iterator[Finding]:
    facts = machine.describe()
    yield Finding("python", Status.OK, f"Python {facts['python']} on {facts['system']}, {facts['processor']}")


def _packages() -> Iterator[Finding]:
    """Report the versions of all dependencies on this system, by extra. Those of an extra are optional."""
    from packaging.requirements import Requirement  # a dependency of librosa

    versions: dict[str, list[str]] = {"": [f"tsbs-daw {importlib.metadata.version('tsbs-daw')}"]}
    missing: dict[str, list[str]] = {}
    for text in importlib.metadata.requires("tsbs-daw") or []:
        requirement = Requirement(text)
        name, marker = requirement.name, requirement.marker
        match = re.search(r"extra == ['\"](\w+)['\"]", str(marker))
        extra = match[1] if match else ""
        if marker and not marker.evaluate({"extra": extra}):
            continue
        try:
            version = importlib.metadata.version(name)
            versions.setdefault(extra, []).append(f"{name} {version}")
        except importlib.metadata.PackageNotFoundError:
            missing.setdefault(extra, []).append(name)
    for extra, names in versions.items():
        yield Finding("packages", Status.OK, f"[{extra}] {', '.join(names)}" if extra else ", ".join(names))
    for extra, names in missing.items():
        if not extra:
            advice = "Run `pip install --upgrade tsbs-daw`."
            yield Finding("packages", Status.PROBLEM, f"Missing: {', '.join(names)}.", advice)
        elif extra != "test":
            advice = f"Optional; `pip install 'tsbs-daw[{extra}]'` installs it."
            yield Finding("packages", Status.NOTE, f"[{extra}] is incomplete: missing {', '.join(names)}", advice)


def _folders(settings: Settings) -> Iterator[Finding]:
    """Write, rename, read and remove a file in each folder."""
    for name, folder in (("home", settings.home), ("cache", settings.cache), ("models", settings.models)):
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(prefix=".doctor-", dir=folder) as inside:
                old, new = Path(inside) / "old", Path(inside) / "new"
                old.write_text("old", encoding="utf-8")
                new.write_text("new", encoding="utf-8")
                new.replace(old)
                works = old.read_text(encoding="utf-8") == "new"
            reason = "a rename did not replace the file"
        except OSError as error:
            works, reason = False, error.strerror or str(error)
        if works:
            yield Finding("folders", Status.OK, f"{name}: {folder}")
        else:
            advice = "Check its permissions, or set TSBS_DAW_HOME to another folder."
            yield Finding("folders", Status.PROBLEM, f"{name}: cannot write to {shown(folder)} ({reason}).", advice)


def _space(settings: Settings) -> Iterator[Finding]:
    for folder in (settings.home, settings.cache):
        existing = next((place for place in (folder, *folder.parents) if place.is_dir()), folder)
        free = shutil.disk_usage(existing).free
        what = f"{free / 1e9:.1f} GB free at {existing}"
        if free < NEEDED_DISK_BYTES:
            yield Finding(
                "space", Status.PROBLEM, f"Only {what}.", "Free some space there, or set TSBS_DAW_HOME to another disk."
            )
        else:
            yield Finding("space", Status.OK, what)


def _memory() -> Iterator[Finding]:
    total, available = machine.memory_bytes()
    known = available if available is not None else total
    if known is None:
        yield Finding("memory", Status.NOTE, "this system does not report its memory")
    elif known < NEEDED_MEMORY_BYTES:
        what = f"Only {known / 1e9:.1f} GB of memory."
        yield Finding("memory", Status.PROBLEM, what, "Close other programs: a separation needs up to 1.5 GB.")
    else:
        yield Finding("memory", Status.OK, f"{known / 1e9:.1f} GB of memory" + (" free" if available else ""))


# Tries to get a lock that another process holds. Exits with 7 if that fails, which is the correct result.
_SECOND_PROCESS = """
import sys, filelock
try:
    filelock.FileLock(sys.argv[1]).acquire(timeout=0)
except filelock.Timeout:
    sys.exit(7)
"""


def _locks(settings: Settings) -> Iterator[Finding]:
    """Check that a second process cannot get a lock that this one holds; this keeps two daemons from running."""
    from filelock import FileLock

    try:
        with tempfile.TemporaryDirectory(prefix=".doctor-", dir=settings.home) as folder:
            path = str(Path(folder) / "lock")
            with FileLock(path, timeout=0):
                held = subprocess.run([sys.executable, "-c", _SECOND_PROCESS, path], capture_output=True, timeout=60)
    except OSError as error:
        what = f"Cannot create a file in {shown(settings.home)} ({error.strerror})."
        yield Finding("locks", Status.PROBLEM, what, "Check the folder and its permissions.")
        return
    if held.returncode == 7:
        yield Finding("locks", Status.OK, "file locks work between processes")
    else:
        advice = "Set TSBS_DAW_HOME to a folder on a local disk; some network shares do not support locks."
        yield Finding("locks", Status.PROBLEM, f"File locks do not work in {shown(settings.home)}.", advice)


def _daemon(settings: Settings) -> Iterator[Finding]:
    from tsbs_daw.queue.spool import living_daemon

    heartbeat = living_daemon(settings.spool)
    if heartbeat is None:
        yield Finding("daemon", Status.NOTE, "no daemon is running", "`tsbs-daw watch FOLDER --out FOLDER` starts one.")
    else:
        yield Finding(
            "daemon", Status.OK, f"a daemon is running (process {heartbeat.pid}, version {heartbeat.version})"
        )


def _reaper() -> Iterator[Finding]:
    folder = usual_folder()
    if folder.is_dir():
        yield Finding("REAPER", Status.OK, f"REAPER's folder is {folder}")
    else:
        advice = "Only needed for the actions inside REAPER. A portable REAPER has its folder elsewhere."
        yield Finding("REAPER", Status.NOTE, f"there is no REAPER folder at {folder}", advice)


def _probe(name: str, settings: Settings, model: str) -> Iterator[Finding]:
    """Run one check of `probe` in a separate process; a crash is a finding."""
    with tempfile.TemporaryDirectory(prefix="tsbs-daw-doctor-") as folder:
        request: dict[str, object] = {"probe": name, "model": model, "folder": folder}
        request |= {"settings": {key: str(value) for key, value in asdict(settings).items()}}
        command, env = child.python("tsbs_daw.doctor.probe"), child.environment()
        try:
            answer = child.ask(command, request, limit_s=PROBE_LIMIT_S, env=env)
        except child.ChildTimeout:
            what = f"The check did not finish within {PROBE_LIMIT_S:.0f} s."
            yield Finding(name, Status.PROBLEM, what, "Try `--device cpu`; if that works, update the device's driver.")
        except child.ChildRefused as error:
            yield Finding(name, Status.PROBLEM, str(error), _ADVICE[name])
        except child.ChildFailed as error:
            ending = ": ".join([error.exit_text, *error.log.strip().splitlines()[-1:]])
            yield Finding(name, Status.PROBLEM, f"The check crashed ({ending}).", _ADVICE[name])
        else:
            for found in answer:
                yield Finding(name, Status(found["status"]), found["what"], found["advice"])


def _cluster(address: str, settings: Settings, model: str) -> Iterator[Finding]:
    """Compute a chunk on every actor of a cluster, and compare the results with this machine's result."""
    from tsbs_daw.cluster.status import ask
    from tsbs_daw.models.registry import resolve

    try:
        found = ask(address, resolve(model, settings), settings.precision)
    except ClusterUnavailable as error:
        yield Finding("cluster", Status.PROBLEM, str(error), "See docs/cluster.md for how to start the cluster.")
        return
    for trial in found["trials"]:
        if trial["ok"]:
            what = f"{trial['name']} computes correctly, {trial['speed']:.1f} times real time for a short chunk"
            yield Finding("cluster", Status.OK, what)
        else:
            why = trial.get("error") or f"its stems are off by {trial['difference']:.0e}"
            advice = "Install the same version of tsbs-daw there, and run `tsbs-daw doctor` on it."
            yield Finding("cluster", Status.PROBLEM, f"{trial['name']} cannot be used: {why}", advice)
    if slow := [trial["name"] for trial in found["trials"] if trial.get("nice", 0) > 0]:
        what = f"Actors have a low priority on {', '.join(slow)} and wait for other programs there."
        yield Finding("cluster", Status.NOTE, what, "Start these nodes with RAY_worker_niceness=0 in the environment.")
    if not found["trials"]:
        advice = "Start nodes with `ray start --address=HEAD:6379`."
        yield Finding("cluster", Status.PROBLEM, f"The cluster {address} has no compute nodes.", advice)


_ADVICE = {
    "imports": "Reinstall tsbs-daw: `pip install --force-reinstall tsbs-daw`.",
    "device": "Reinstall torch for this machine (https://pytorch.org/get-started), and update the device's driver.",
    "job": "Fix the problems above first; if there are none, please report this line.",
}
