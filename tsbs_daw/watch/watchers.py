"""Builds the watchers of a daemon: what each leaves out, where its copies go, how it finds out about changes."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from tsbs_daw.core.config import Settings
from tsbs_daw.queue.options import DaemonOptions
from tsbs_daw.queue.spool import Spool
from tsbs_daw.queue.store import JobStore
from tsbs_daw.watch.copying import Budget, Destination
from tsbs_daw.watch.fingerprint import Fingerprints
from tsbs_daw.watch.folders import WatchFolder
from tsbs_daw.watch.notifications import sends_no_events
from tsbs_daw.watch.scan import Scanner
from tsbs_daw.watch.watcher import WatchContext, Watcher


def make_watchers(
    folders: Sequence[WatchFolder],
    settings: Settings,
    store: JobStore,
    budget: Budget,
    options: DaemonOptions,
    *,
    once: bool = False,
) -> list[Watcher]:
    """One per folder, not started."""
    fingerprints = Fingerprints(settings)
    jobs = Spool(settings.spool).jobs
    watchers = []
    for folder in folders:
        polling = sends_no_events(folder.path) if folder.polling is None else folder.polling
        context = WatchContext(
            destination=_destination(folder, jobs, fingerprints),
            budget=budget,
            timings=options.share if polling else options.local,
            events=not polling,
            patience_s=options.patience_s if once else None,
        )
        scanner = Scanner(folder.path, recursive=folder.recursive, excluded=_excluded(folder, folders, settings))
        watchers.append(Watcher(folder, scanner, store.files_of(str(folder.path)), context))
    return watchers


def _destination(folder: WatchFolder, jobs: Path, fingerprints: Fingerprints):
    return lambda: Destination(jobs, folder, fingerprints.of_settings(folder), fingerprints.of_model(folder.model))


def _excluded(folder: WatchFolder, folders: Sequence[WatchFolder], settings: Settings) -> tuple[Path, ...]:
    """Outputs, the program's own folders, and other watch folders, where they lie inside this one."""
    root = os.path.realpath(folder.path)
    places = [other.output for other in folders] + [other.path for other in folders if other is not folder]
    places += [settings.home, settings.cache, settings.models]
    real = (os.path.realpath(place) for place in places)
    return tuple(Path(place) for place in real if place != root and place.startswith(root + os.sep))
