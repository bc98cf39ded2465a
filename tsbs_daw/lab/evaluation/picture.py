"""Spectrograms of one song: target, mask stage, map stage and residual side by side, one row per stem."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from tsbs_daw.core.errors import UsageError
from tsbs_daw.lab.evaluation.songs import KnownSong
from tsbs_daw.separation.separator import Separator

N_FFT, HOP_LENGTH = 2048, 512
RANGE_DB = 80.0
COLUMNS = ("target", "mask stage", "mask + map stage", "what the map stage adds")


def draw_picture(song: KnownSong, separator: Separator, path: Path) -> None:
    """Separate a song with both stages and write a PNG, or the format of the ending of `path`.

    Raises:
        UsageError: matplotlib is not installed
    """
    full = separator.separate(song.mixture, song.sample_rate)
    mask = separator.separate(song.mixture, song.sample_rate, stage="mask")
    rows = {
        stem: (song.targets[index], mask[stem], full[stem], full[stem] - mask[stem])
        for index, stem in enumerate(separator.stems)
    }
    draw_rows(rows, song.sample_rate, song.name, path)


def draw_rows(rows: dict[str, tuple[np.ndarray, ...]], sample_rate: int, title: str, path: Path) -> None:
    """Draw spectrograms.

    Args:
        rows: stem to audio, (channels, samples), for each of COLUMNS
        sample_rate: in Hz
        title: of the picture
        path: of the file
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise UsageError("A picture needs matplotlib: pip install 'tsbs-daw[train]'") from error
    # Not pyplot, which keeps global state and looks for a display.
    figure = Figure(figsize=(13, 2.4 * len(rows) + 0.6), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(len(rows), len(COLUMNS), sharex=True, sharey=True, squeeze=False)
    top_db = max(levels_db(parts[0]).max() for parts in rows.values())
    for axis, column in zip(axes[0], COLUMNS, strict=True):
        axis.set_title(column, fontsize=10)
    for row, (stem, parts) in zip(axes, rows.items(), strict=True):
        for axis, audio in zip(row, parts, strict=True):
            extent = (0.0, audio.shape[-1] / sample_rate, 0.0, sample_rate / 2000.0)
            image = axis.imshow(
                levels_db(audio),
                origin="lower",
                aspect="auto",
                extent=extent,
                vmin=top_db - RANGE_DB,
                vmax=top_db,
                cmap="magma",
            )
        row[0].set_ylabel(f"{stem}\nkHz")
    for axis in axes[-1]:
        axis.set_xlabel("s")
    figure.colorbar(image, ax=axes, label="dB", shrink=0.6)
    figure.suptitle(title)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=90)


def levels_db(audio: np.ndarray) -> np.ndarray:
    """The magnitude spectrogram of the mean of the channels in dB: (channels, samples) to (bins, frames)."""
    mono = torch.from_numpy(np.ascontiguousarray(audio.mean(axis=0), dtype=np.float32))
    if mono.shape[-1] <= N_FFT // 2:
        mono = torch.nn.functional.pad(mono, (0, N_FFT - mono.shape[-1]))
    window = torch.hann_window(N_FFT)
    magnitude = torch.stft(mono, N_FFT, HOP_LENGTH, window=window, return_complex=True).abs() / window.sum()
    return (20.0 * torch.log10(magnitude + 1e-8)).numpy()
