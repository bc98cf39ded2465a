"""Runs the real program as a process of its own, with a home of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

from timeouts import PATIENCE_S


def environment(home: Path, **more: str) -> dict[str, str]:
    """One thread for each process: threads that wait for each other on a busy machine take many times as long."""
    fixed = {"TSBS_DAW_HOME": str(home), "PYTHONIOENCODING": "utf-8", "COLUMNS": "100", "OMP_NUM_THREADS": "1"}
    return {**os.environ, **fixed, **more}


def run(home: Path, *arguments: str | Path, cwd: Path | None = None, **more: str) -> subprocess.CompletedProcess[str]:
    """`tsbs-daw ARGUMENTS`, waited for; its output as text."""
    return subprocess.run(
        [sys.executable, "-W", "error", "-m", "tsbs_daw", *map(str, arguments)],
        env=environment(home, **more),
        cwd=cwd,
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=PATIENCE_S,
        check=False,
    )


def shown_on(controller: int) -> bytes:
    """All that comes to a terminal's controlling end, until nobody holds the other; closes it."""
    shown = b""
    try:
        while part := os.read(controller, 65536):
            shown += part
    except OSError:  # Linux says so when the other side has closed
        pass
    finally:
        os.close(controller)
    return shown


def small_model(path: Path, seed: int = 0) -> Path:
    """A checkpoint with random weights that separates badly and quickly."""
    import torch

    from tsbs_daw.network import TINY, TwoStageSeparator
    from tsbs_daw.network.checkpoint import save

    torch.manual_seed(seed)
    config = replace(TINY, feature_dim=8, mask_blocks=1, map_blocks=1, d_state=4, headdim=8)
    save(TwoStageSeparator(config), path, {})
    return path


def song_file(path: Path, duration_s: float = 1.0, *, sample_rate: int = 44100, seed: int = 0) -> Path:
    """A stereo WAV of a little song."""
    import signals
    import soundfile

    path.parent.mkdir(parents=True, exist_ok=True)
    mixture = sum(signals.song(duration_s, sample_rate, seed=seed).values())
    soundfile.write(path, mixture.T, sample_rate, subtype="FLOAT")
    return path
