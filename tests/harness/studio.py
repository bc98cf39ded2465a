"""Where songs are put and jobs are run in this process: folders, settings, and what was heard of the progress."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import signals
import soundfile

from tsbs_daw.contracts.job import Job, Result
from tsbs_daw.core.config import Settings
from tsbs_daw.pipeline.run import run_job

STEMS = {"drums", "bass", "other", "vocals"}


class Studio:
    """A folder with settings, where songs are put and jobs run.

    Args: cache: where separated stems are kept; None: nothing is known of earlier runs
    """

    def __init__(self, root: Path, cache: Path | None = None):
        self.root, self.out = root, root / "out"
        self.settings = Settings(root / "home", cache or root / "cache", root / "models", "cpu")
        self.progress: list[float] = []
        self.phrases: list[str] = []

    def song(self, name: str = "song.wav", duration_s: float = 1.0, sample_rate: int = 44100, **options) -> Path:
        audio = signals.mixture(signals.song(duration_s, sample_rate, **options))
        return signals.write_file(self.root / name, audio, sample_rate)

    def preset(self, text: str, name: str = "test preset") -> str:
        path = self.root / f"{name}.yaml"
        path.write_text(text, encoding="utf-8")
        return str(path)

    def run(self, path: Path, cancelled=lambda: False, **changes) -> Result:
        source = {"path": path, **changes.pop("portion", {})}
        job = Job(schema=1, source=source, output=self.out, **changes)
        self.progress, self.phrases = [], []

        def progress(fraction: float, phrase: str) -> None:
            self.progress.append(fraction)
            if phrase not in self.phrases:
                self.phrases.append(phrase)

        return run_job(job, settings=self.settings, fence=1, attempt=1, progress=progress, cancelled=cancelled)

    def manifest(self, result: Result) -> dict:
        return json.loads(result.manifest.read_text(encoding="utf-8"))


def sound_of(path: Path) -> np.ndarray:
    """(channels, samples), float32"""
    data, _ = soundfile.read(path, dtype="float32", always_2d=True)
    return data.T


def stem_of(result: Result, name: str) -> np.ndarray:
    """The file of a stem, whatever it is called."""
    (path,) = (stem.path for stem in result.stems if stem.name == name)
    return sound_of(path)
