"""`tsbs-daw demo`: the first thing a user sees."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import soundfile
from cli.program import run, small_model


def audio(path: Path) -> np.ndarray:
    return soundfile.read(path, dtype="float64")[0]


def test_the_demo_makes_separates_and_measures_a_song_and_works_again(tmp_path: Path):
    model = small_model(tmp_path / "small.safetensors")
    arguments = ["demo", "--out", tmp_path / "demo", "--seconds", "2", "--model", model]
    done = run(tmp_path / "home", *arguments, "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    stems, originals = Path(found["stems"]), Path(found["originals"])
    assert Path(found["session"]).is_file() and stems == tmp_path / "demo" / "stems" / "Demo Song"
    mixture = audio(Path(found["song"]))
    assert found["sdr_db"].keys() == {"vocals", "drums", "bass", "other"}
    for stem, levels in found["sdr_db"].items():
        target, estimate = audio(originals / f"{stem}.wav"), audio(stems / f"{stem}.wav")
        assert estimate.shape == target.shape
        for name, signal in (("separated", estimate), ("mixture", mixture)):
            energy, error = np.sum(target**2), np.sum((target - signal) ** 2)
            assert abs(levels[name] - 10 * np.log10((energy + 1e-7) / (error + 1e-7))) < 0.01
    assert sorted(path.name for path in (tmp_path / "demo").iterdir()) == ["drop", "originals", "stems"]
    again = run(tmp_path / "home", *arguments)
    assert again.returncode == 0, again.stderr
    assert "SDR OF THE MIXTURE" in again.stdout and str(stems) in again.stdout
    assert list((tmp_path / "demo" / "stems").iterdir()) == [stems], "the same run again is recognised"


def test_a_demo_that_cannot_work_says_why(tmp_path: Path):
    done = run(tmp_path / "home", "demo", "--out", tmp_path / "demo", "--model", "no-such-model")
    assert done.returncode == 2 and "no-such-model" in done.stderr
    (tmp_path / "file").write_text("in the way")
    done = run(tmp_path / "home", "demo", "--out", tmp_path / "file", "--seconds", "1")
    assert done.returncode == 1 and "--out" in done.stderr and "Traceback" not in done.stderr
