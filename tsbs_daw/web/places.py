"""What the page shows beside the queue: watch folders and what they did, models, and what can be chosen."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tsbs_daw.core.config import Settings
from tsbs_daw.core.filenames import source_name
from tsbs_daw.models.registry import list_models
from tsbs_daw.presets.preset import preset_files
from tsbs_daw.queue.locks import watching_process
from tsbs_daw.queue.spool import living_daemon
from tsbs_daw.queue.store import JobStore

if TYPE_CHECKING:
    from tsbs_daw.web.app import Options

_FILES_SHOWN = 200  # of a folder


def choices(options: Options) -> dict[str, Any]:
    """Presets and models by name, and where the stems of a dropped file go."""
    return {
        "presets": list(preset_files(options.settings.presets)),
        "models": [entry.name for entry in list_models(options.settings) if entry.path is not None],
        "out": source_name(options.out),
        "mostBytes": options.most_bytes,
    }


def models(settings: Settings) -> list[dict[str, Any]]:
    """Every model, as `tsbs-daw models list` has them."""
    return [
        {
            "name": entry.name,
            "state": entry.state,
            "description": entry.known.description if entry.known else source_name(entry.path or ""),
            "size": entry.path.stat().st_size if entry.path and entry.path.is_file() else None,
        }
        for entry in list_models(settings)
    ]


def folders(settings: Settings, store: JobStore | None) -> list[dict[str, Any]]:
    """Every folder that was ever watched, with what became of its latest files."""
    if store is None:
        return []
    daemon = living_daemon(settings.spool)
    found = []
    for root in store.roots():
        files = store.files_of(root)
        rows = {row.id: row for row in store.of_ids(file.job_id for file in files.values() if file.job_id)}
        entries: list[dict[str, Any]] = [
            {
                "file": source_name(file.relative),
                "state": rows[file.job_id].state.value if file.job_id in rows else "ignored" if file.reason else "gone",
                "job": file.job_id if file.job_id in rows else None,
                "why": (rows[file.job_id].error if file.job_id in rows else file.reason) or "",
                "when": rows[file.job_id].created_unix_s if file.job_id in rows else 0,
                "out": _output(rows[file.job_id].job_json) if file.job_id in rows else "",
            }
            for file in files.values()
        ]
        entries.sort(key=lambda entry: entry["when"], reverse=True)
        counts: dict[str, int] = {}
        for entry in entries:
            counts[str(entry["state"])] = counts.get(str(entry["state"]), 0) + 1
        found.append(
            {
                "folder": source_name(root),
                "there": Path(root).is_dir(),
                "watched": daemon is not None and watching_process(Path(root)) == daemon.pid,
                "counts": counts,
                "out": next((entry["out"] for entry in entries if entry["out"]), ""),
                "files": [{k: v for k, v in entry.items() if k != "out"} for entry in entries[:_FILES_SHOWN]],
                "more": max(len(entries) - _FILES_SHOWN, 0),
            }
        )
    return found


def _output(job_json: str) -> str:
    return str(json.loads(job_json).get("output", "")) if job_json else ""
