"""Short names for "the same settings": when a file has been separated with them, it need not be again.

These do not decide what is reused of a separation, which the pipeline does with the hashes of what it really loaded.
They only say whether a watched file has been dealt with, so they are cheap and read no weights of the network.
"""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

from tsbs_daw.config import Settings, resource_folder
from tsbs_daw.jobs.folders import WatchFolder
from tsbs_daw.jobs.manifest import file_sha256

_BUNDLED = Path(__file__).parent.parent / "model" / "weights"


class Fingerprints:
    """Hashes files once, and again only when they look different."""

    def __init__(self, settings: Settings):
        self._settings = settings
        self._known: dict[Path, tuple[tuple[int, int], str]] = {}

    def of_settings(self, folder: WatchFolder) -> str:
        """The preset's content, the model's name, the options, and where the output goes."""
        preset = (
            Path(folder.preset)
            if Path(folder.preset).is_absolute()
            else resource_folder("presets") / f"{folder.preset}.yaml"
        )
        decisive = [self._of_file(preset), folder.preset, folder.model, folder.stage, folder.null]
        decisive.append(os.fsencode(folder.output).hex())
        return hashlib.sha256(json.dumps(decisive).encode()).hexdigest()

    def of_model(self, name: str) -> str:
        """The content of the checkpoint, wherever the name leads; the name itself while there is none."""
        places = (
            [Path(name)] if Path(name).is_absolute() else [folder / f"{name}.safetensors" for folder in self._folders()]
        )
        found = next((digest for place in places if (digest := self._of_file(place))), "")
        return found or hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()

    def _folders(self) -> tuple[Path, Path]:
        return _BUNDLED, self._settings.models

    def _of_file(self, path: Path) -> str:
        """Empty when it cannot be read; the job will say so."""
        try:
            status = path.stat()
            look = (status.st_size, status.st_mtime_ns)
            known = self._known.get(path)
            if known is None or known[0] != look:
                known = self._known[path] = (look, file_sha256(path))
            return known[1]
        except (OSError, ValueError):
            return ""
