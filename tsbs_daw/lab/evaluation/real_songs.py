"""Make the benchmark's songs from clones of their public repositories.

    git clone https://github.com/mdn/webaudio-examples
    python -m tsbs_daw.lab.evaluation real-songs OUT --clone webaudio-examples

Files are read from the commit that `real_songs.yaml` pins, whatever is checked out: a commit's hash covers every byte.
"""

from __future__ import annotations

import io
import subprocess
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import soxr
import yaml

from tsbs_daw.core.errors import DatasetError

SAMPLE_RATE = 44100
FADE_S = 0.01
GIT_S = 600.0


def make_real_songs(
    out: Path, clones: list[Path], *, document: dict[str, Any] | None = None, report: Callable[[str], None] = print
) -> list[Path]:
    """Write every song of the benchmark whose repository is among `clones` as `OUT/<song>/<stem>.flac`.

    Args:
        out: the folder of songs; songs that are there already are left alone
        clones: folders of cloned repositories, named as in `real_songs.yaml`
        document: the benchmark, as parsed from `real_songs.yaml`

    Returns:
        the songs' folders

    Raises:
        DatasetError: a clone lacks the pinned commit or a file, or a file cannot be decoded
    """
    document = document or yaml.safe_load((files("tsbs_daw.lab.evaluation") / "real_songs.yaml").read_text("utf-8"))
    by_name = {clone.absolute().name.removesuffix(".git"): clone for clone in clones}
    if unknown := sorted(set(by_name) - set(document["repositories"])):
        raise DatasetError(
            f"The clone {unknown[0]} is not one of the benchmark's repositories; they are "
            f"{', '.join(document['repositories'])}."
        )
    made = []
    for name, song in document["songs"].items():
        clone = by_name.get(song["repository"])
        if clone is None:
            report(f"{name}: skipped, no clone of {document['repositories'][song['repository']]['url']} was given")
            continue
        folder = out / name
        if not folder.is_dir():
            _write_song(folder, song, clone, document["repositories"][song["repository"]])
            report(f"{name}: {song['title']}")
        made.append(folder)
    return made


def _write_song(folder: Path, song: dict[str, Any], clone: Path, repository: dict[str, str]) -> None:
    stems = {stem: _sum_of(names, song, clone, repository) for stem, names in song["stems"].items()}
    length = max(audio.shape[1] for audio in stems.values())
    if song["length_s"] is not None:
        length = round(song["length_s"] * SAMPLE_RATE)
    partial = folder.with_name(f".{folder.name}.partial")
    partial.mkdir(parents=True, exist_ok=True)
    for stem, audio in stems.items():
        audio = np.pad(audio[:, :length], ((0, 0), (0, max(0, length - audio.shape[1]))))
        audio = _faded(audio * 10.0 ** (song["gain_db"] / 20.0))
        soundfile.write(partial / f"{stem}.flac", audio.T, SAMPLE_RATE, subtype="PCM_24")
    partial.rename(folder)


def _sum_of(names: list[str], song: dict[str, Any], clone: Path, repository: dict[str, str]) -> np.ndarray:
    """(2, samples) at 44.1 kHz from `start_s` on: the sum of the files `names`; nothing is (2, 0)."""
    total = np.zeros((2, 0))
    for name in names:
        path = f"{song['folder']}/{name}{repository['suffix']}"
        audio, rate = _decode(_file_at(clone, repository["commit"], path), path)
        audio = audio[:, round(song["start_s"] * rate) :]
        if rate != SAMPLE_RATE:
            audio = soxr.resample(audio.T, rate, SAMPLE_RATE, quality="VHQ").T
        longer, shorter = sorted((total, audio), key=lambda part: part.shape[1], reverse=True)
        total = longer.copy()
        total[:, : shorter.shape[1]] += shorter
    return total


def _file_at(clone: Path, commit: str, path: str) -> bytes:
    command = ["git", "-C", str(clone), "cat-file", "blob", f"{commit}:{path}"]
    try:
        return subprocess.run(command, capture_output=True, check=True, timeout=GIT_S).stdout
    except FileNotFoundError as error:
        raise DatasetError("The program git is missing; install it to read the benchmark's repositories.") from error
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
        raise DatasetError(
            f"The clone {clone} does not hold {path} at commit {commit[:12]}; clone the whole repository, with its "
            "history."
        ) from error


def _decode(data: bytes, path: str) -> tuple[np.ndarray, int]:
    """(2, samples) float64 and the sample rate."""
    try:
        if not path.endswith(".m4a"):
            audio, rate = soundfile.read(io.BytesIO(data), always_2d=True)
            return _stereo(audio.T), rate
        import av

        with av.open(io.BytesIO(data)) as container:
            stream = container.streams.audio[0]
            resampler = av.AudioResampler(format="fltp", layout="stereo", rate=stream.rate)
            blocks = [
                block.to_ndarray() for frame in (*container.decode(stream), None) for block in resampler.resample(frame)
            ]
            return np.concatenate(blocks, axis=1).astype(np.float64), stream.rate
    except ImportError as error:
        raise DatasetError("Reading .m4a files needs PyAV; install it with: pip install 'tsbs-daw[media]'") from error
    except (OSError, ValueError, RuntimeError) as error:
        raise DatasetError(f"Cannot decode {path}: {error}") from error


def _stereo(audio: np.ndarray) -> np.ndarray:
    return np.repeat(audio, 2, axis=0) if len(audio) == 1 else audio[:2]


def _faded(audio: np.ndarray) -> np.ndarray:
    fade = min(round(FADE_S * SAMPLE_RATE), audio.shape[1])
    audio = audio.copy()
    audio[:, :fade] *= np.linspace(0.0, 1.0, fade)
    audio[:, audio.shape[1] - fade :] *= np.linspace(1.0, 0.0, fade)
    return audio
