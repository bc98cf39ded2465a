"""Remember which plug-ins crash, and refuse one that has done so twice.

A file in the cache folder; a plug-in that is updated starts anew.
"""

from __future__ import annotations

import json
import logging
import time
from pathlib import Path

from tsbs_daw.core.errors import EffectError, shown
from tsbs_daw.core.files import write_atomically

log = logging.getLogger(__name__)

CRASHES_ALLOWED = 1
FILES_LOOKED_AT = 500  # of a plug-in's bundle


class Quarantine:
    """Args: file: where crashes are noted; made when first needed"""

    def __init__(self, file: Path):
        self.file = file

    def check(self, plugin: Path) -> None:
        """Raises: EffectError: the plug-in has crashed or hung twice and was not updated since"""
        entry = self._read().get(str(plugin))
        if entry and entry["modified_ns"] == modified_ns(plugin) and entry["crashes"] > CRASHES_ALLOWED:
            raise EffectError(
                f"The plug-in {shown(plugin)} is not used any more, because it {entry['last']} "
                f"{entry['crashes']} times; update it, or try it with `tsbs-daw presets check --run`."
            )

    def add(self, plugin: Path, how: str) -> int:
        """Note a crash (`how`: "crashed", "hung"). Returns how many there are now."""
        with self._locked():
            entries = self._read()
            entry, modified = entries.get(str(plugin)), modified_ns(plugin)
            before = entry["crashes"] if entry and entry["modified_ns"] == modified else 0
            entries[str(plugin)] = {
                "crashes": before + 1,
                "last": how,
                "modified_ns": modified,
                "unix_s": round(time.time()),
            }
            self._write(entries)
        return before + 1

    def forgive(self, plugin: Path) -> None:
        """Forget a plug-in's crashes, to try it again."""
        if str(plugin) in self._read():
            with self._locked():
                self._write({key: entry for key, entry in self._read().items() if key != str(plugin)})

    def _locked(self):
        from filelock import FileLock

        self.file.parent.mkdir(parents=True, exist_ok=True)
        return FileLock(str(self.file) + ".lock")

    def _read(self) -> dict[str, dict]:
        try:
            entries = json.loads(self.file.read_text(encoding="utf-8"))
            for entry in entries.values():
                int(entry["crashes"]), int(entry["modified_ns"]), str(entry["last"])
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
            log.warning("the list of crashed plug-ins %s is damaged and counts as empty: %s", shown(self.file), error)
            return {}
        return entries

    def _write(self, entries: dict[str, dict]) -> None:
        write_atomically(self.file, json.dumps(entries, indent=2))


def modified_ns(plugin: Path) -> int:
    """When any file of a plug-in was last changed; a plug-in is one file or a folder of them. 0: not there."""
    files = [plugin, *sorted(plugin.rglob("*"))[:FILES_LOOKED_AT]] if plugin.is_dir() else [plugin]
    return max((file.stat().st_mtime_ns for file in files if file.exists()), default=0)
