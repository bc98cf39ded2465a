"""Short names for "the same settings": when a file has been separated with them, it need not be again.

These do not decide what is reused of a separation, which the pipeline does with the hashes of what it really loaded.
They only say whether a watched file has been dealt with, so they are cheap, and a file that does not look different is
not read again.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from tsbs_daw.core.config import Settings
from tsbs_daw.core.errors import PresetError
from tsbs_daw.core.files import file_sha256
from tsbs_daw.models import registry
from tsbs_daw.watch.folders import WatchFolder

_UNUSABLE = "unusable"  # what is wrong with it, the job will say


class Treatment(Protocol):
    """What is done to a song, as a watch folder, a crate or a job says it."""

    preset: str
    model: str
    stage: str
    null: bool


class Fingerprints:
    """One per daemon. Used by the threads of all its watchers; a hash that two of them compute is the same."""

    def __init__(self, settings: Settings):
        self._settings = settings
        self._precision = settings.precision
        self._presets: dict[str, Path] = {}
        self._known: dict[Path, tuple[tuple[int, int], str]] = {}

    def of_settings(self, folder: WatchFolder) -> str:
        """What is done to the songs of a folder, and where they go."""
        return self.of_treatment(folder, folder.output)

    def of_treatment(self, asked: Treatment, output: Path) -> str:
        """The preset's content, the model's name, the options, where the output goes, the precision."""
        decisive = [self._of_preset(asked.preset), asked.preset, asked.model, asked.stage, asked.null]
        decisive += [os.fsencode(output).hex(), *self._chosen()]
        return hashlib.sha256(json.dumps(decisive).encode()).hexdigest()

    def of_model(self, name: str) -> str:
        """The content of the checkpoint, wherever the name leads, and the precision; the name while there is none."""
        path = registry.locate(name, self._settings)
        digest = self._of_file(path, file_sha256) if path else _UNUSABLE
        if digest == _UNUSABLE:
            digest = hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()
        return "-".join((digest, *self._chosen()))

    def _chosen(self) -> tuple[str, ...]:
        """The precision, if one was asked for: without, everything is called as before there was a choice."""
        return () if self._precision == "auto" else (self._precision,)

    def _of_preset(self, name: str) -> str:
        from tsbs_daw.presets.preset import preset_files, read_preset

        path = Path(name) if Path(name).is_absolute() else self._presets.get(name)
        if path is None or not path.is_file():
            path = self._presets[name] = preset_files(self._settings.presets).get(name, Path(name))
        return self._of_file(path, lambda path: read_preset(path).sha256)

    def _of_file(self, path: Path, digest: Callable[[Path], str]) -> str:
        try:
            status = path.stat()
            look = (status.st_size, status.st_mtime_ns)
            known = self._known.get(path)
            if known is None or known[0] != look:
                known = self._known[path] = (look, digest(path))
            return known[1]
        except (OSError, ValueError, PresetError):
            return _UNUSABLE
