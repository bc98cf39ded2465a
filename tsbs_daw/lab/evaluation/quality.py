"""Gain and cost of each step of `--quality` on real songs: the table of docs/models.md.

S stems; estimates are (S, channels, samples). All figures are for the default, in which stems share the residual.

Each variant of a song is separated once, and used by all rows that contain it. Times are CPU times, so that other
processes do not affect them, and are given as a multiple of normal quality's.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tsbs_daw.lab.evaluation.evaluate import rms_db, rounded
from tsbs_daw.lab.evaluation.real import frame_sdr, read_real_songs, scored_and_silent, shared_stems
from tsbs_daw.lab.evaluation.songs import KnownSong
from tsbs_daw.separation.separator import QUALITIES, Separator, Steps
from tsbs_daw.separation.streams import OVERLAP, share_mixture

SCHEMA = 1
WINDOW, HOP = 4096, 1024  # STFT of the Wiener filter, in samples


@dataclass(frozen=True)
class Variant:
    """A way to separate a song.

    Attributes:
        overlap: Overlap of chunks; None for the separator's own.
        shift: Silence before the song, which moves the chunks, as a fraction of their distance.
        inverted: Whether to invert the polarity, and that of the stems again.
        exchanged: Whether to exchange left and right, and those of the stems again.
        member: Index of the model that separates.
    """

    overlap: float | None = None
    shift: float = 0.0
    inverted: bool = False
    exchanged: bool = False
    member: int = 0


@dataclass(frozen=True)
class Row:
    """A row of the table: the mean of variants, with or without the mask."""

    variants: tuple[Variant, ...] = (Variant(),)
    mask: bool = False

    @property
    def steps(self) -> Steps | None:
        """The program's steps with the same result; None if there are none."""
        overlaps = {(variant,): variant.overlap for variant in (Variant(overlap) for overlap in (None, 0.05, 0.1, 0.5))}
        return Steps(overlaps[self.variants], self.mask) if self.variants in overlaps else None


NORMAL, SHIFTED = Variant(), Variant(shift=0.5)
INVERTED, BOTH = Variant(inverted=True), Variant(shift=0.5, inverted=True)
ROWS = {
    "overlap of 25 %": Row(),
    "overlap of 5 %": Row((Variant(0.05),)),
    "overlap of 10 %": Row((Variant(0.1),)),
    "overlap of 50 %": Row((Variant(0.5),)),
    "mean of both polarities": Row((NORMAL, INVERTED)),
    "mean of left and right exchanged": Row((NORMAL, Variant(exchanged=True))),
    "mean of two shifts": Row((NORMAL, SHIFTED)),
    "mean of two shifts, one inverted": Row((NORMAL, BOTH)),
    "mask": Row(mask=True),
    "mask, overlap of 5 %": Row((Variant(0.05),), mask=True),
    "mask, overlap of 10 %": Row((Variant(0.1),), mask=True),
    "mask, mean of two shifts": Row((NORMAL, SHIFTED), mask=True),
    "mask, mean of two shifts, one inverted": Row((NORMAL, BOTH), mask=True),
}


def compare_qualities(
    data: Path, separator: Separator, *, progress: Callable[[str], None] = lambda line: None
) -> dict[str, Any]:
    """Measure each step on every real song of `data`.

    Args:
        data: The folder of songs; see `real`.
        separator: One model, or several, whose means are rows of the table.
        progress: Called with a line for each row of each song.

    Returns:
        A JSON-ready document.

    Raises:
        DatasetError: The folder has no songs, or a song cannot be read.
    """
    rows: dict[str, list[dict[str, Any]]] = {}
    names = []
    for song in read_real_songs(data, separator.stems):
        names.append(song.name)
        for name, (estimates, seconds) in _Song(song, separator).rows():
            rows.setdefault(name, []).append(_measured(song, separator.stems, estimates, seconds))
            progress(f"{song.name}: {name}: {rows[name][-1]['frame_sdr_db']}")
    first = next(iter(rows))
    return {
        "schema": SCHEMA,
        "models": {member.name: member.model_hash for member in separator.members},
        "songs": names,
        "qualities": {name: step for name, steps in QUALITIES.items() for step in ROWS if ROWS[step].steps == steps},
        "rows": [_summarised(name, songs, rows[first], separator.stems) for name, songs in rows.items()],
    }


class _Song:
    """The estimates of one song; each variant is separated once."""

    def __init__(self, song: KnownSong, separator: Separator):
        self.song, self.members = song, separator.members
        self._separated: dict[Variant, tuple[np.ndarray, float]] = {}

    def rows(self) -> Iterator[tuple[str, tuple[np.ndarray, float]]]:
        """Yield (name, (estimates, seconds)) of each row."""
        for name, row in ROWS.items():
            yield name, self._of(row)
        if len(self.song.mixture) == 2:
            yield "multichannel Wiener filter", _timed(_wiener, self._of(Row()), self.song.mixture)
        for index, member in enumerate(self.members[1:], 1):
            yield f"{member.name} alone", self._of(Row((Variant(member=index),)))
            yield f"mean with {member.name}", self._of(Row((NORMAL, Variant(member=index))))

    def _of(self, row: Row) -> tuple[np.ndarray, float]:
        found = _mean([self._separate(variant) for variant in row.variants])
        return _timed(_masked, found, self.song.mixture, self.song.sample_rate) if row.mask else found

    def _separate(self, variant: Variant) -> tuple[np.ndarray, float]:
        if variant not in self._separated:
            began = time.process_time()
            found = _estimates(self.song, self.members[variant.member], self.members[0].stems, variant)
            self._separated[variant] = found, time.process_time() - began
        return self._separated[variant]


def _estimates(song: KnownSong, separator: Separator, stems: tuple[str, ...], variant: Variant) -> np.ndarray:
    """Separate a variant of a song, and undo the variation in the estimates."""
    mixture = song.mixture[::-1] if variant.exchanged else song.mixture
    mixture = -mixture if variant.inverted else mixture
    step = round((1 - OVERLAP) * separator.chunk_samples) / separator.engine.config.sample_rate
    silence = round(variant.shift * step * song.sample_rate)
    padded = np.ascontiguousarray(np.pad(mixture, ((0, 0), (silence, 0))))
    given = separator.separate(padded, song.sample_rate, quality=Steps(variant.overlap))
    found = np.stack([given[stem] for stem in stems])[..., silence:]
    found = found[:, ::-1] if variant.exchanged else found
    return -found if variant.inverted else found


def _mean(separated: list[tuple[np.ndarray, float]]) -> tuple[np.ndarray, float]:
    mean = np.asarray(np.mean([found for found, _ in separated], axis=0, dtype=np.float32))
    return mean, sum((seconds for _, seconds in separated), 0.0)


def _timed(step: Callable[..., np.ndarray], found: tuple[np.ndarray, float], *values: Any) -> tuple[np.ndarray, float]:
    began = time.process_time()
    return step(found[0], *values), found[1] + time.process_time() - began


def _masked(estimates: np.ndarray, mixture: np.ndarray, sample_rate: int) -> np.ndarray:
    together = np.concatenate([estimates, mixture[None]]).astype(np.float32)
    return np.concatenate(list(share_mixture([together], sample_rate)), axis=-1)


def _wiener(estimates: np.ndarray, mixture: np.ndarray) -> np.ndarray:
    """Apply one EM step of the local Gaussian model (Duong, Vincent, Gribonval 2010) to stereo estimates."""
    window = torch.hann_window(WINDOW)

    def spectra(audio: np.ndarray) -> torch.Tensor:  # (..., samples) -> (..., bins, frames)
        flat = torch.stft(torch.from_numpy(audio).flatten(0, -2), WINDOW, HOP, window=window, return_complex=True)
        return flat.unflatten(0, audio.shape[:-1])

    mixed, stems = spectra(mixture.astype(np.float32)), spectra(estimates)
    power = stems.abs().square().mean(1)  # (S, bins, frames)
    # Spatial covariance of each stem and bin: (S, 2, 2, bins, 1)
    spatial = torch.einsum("sift,sjft->sijf", stems, stems.conj()) / (power.sum(-1)[:, None, None] + 1e-10)
    both = (power[:, None, None] * spatial[..., None]).sum(0)
    (a, b), (c, d) = both[0] + 0j, both[1] + 0j
    a, d = a + 1e-10, d + 1e-10
    left, right = (torch.stack([d * mixed[0] - b * mixed[1], a * mixed[1] - c * mixed[0]]) / (a * d - b * c)).unbind()
    found = []
    for variance, covariance in zip(power, spatial[..., None], strict=True):
        found.append(variance * (covariance[:, 0] * left + covariance[:, 1] * right))
    sound = torch.istft(torch.stack(found).flatten(0, 1), WINDOW, HOP, window=window, length=mixture.shape[-1])
    return sound.unflatten(0, estimates.shape[:2]).numpy()


def _measured(song: KnownSong, stems: tuple[str, ...], estimates: np.ndarray, seconds: float) -> dict[str, Any]:
    truth = dict(zip(stems, song.targets, strict=True))
    found = shared_stems(dict(zip(stems, estimates, strict=True)), song)
    scored, silent = scored_and_silent(song.name, truth)
    sdr = {stem: rounded(frame_sdr(truth[stem], found[stem], song.sample_rate)) for stem in scored}
    return {
        "song": song.name,
        "seconds": seconds / song.seconds,
        "frame_sdr_db": {stem: value for stem, value in sdr.items() if value is not None},
        "leak_db": {stem: rounded(rms_db(found[stem]) - rms_db(song.mixture)) for stem in silent},
    }


def _summarised(
    name: str, songs: list[dict[str, Any]], normal: list[dict[str, Any]], stems: tuple[str, ...]
) -> dict[str, Any]:
    """Summarise a row: medians over songs, and the gain over normal quality, also as the mean over songs and stems."""
    medians = {stem: (_median(songs, stem), _median(normal, stem)) for stem in stems}
    won = [
        found["frame_sdr_db"][stem] - before["frame_sdr_db"][stem]
        for found, before in zip(songs, normal, strict=True)
        for stem in found["frame_sdr_db"]
    ]
    took = [sum(song["seconds"] for song in part) for part in (songs, normal)]
    return {
        "step": name,
        "times_normal": round(took[0] / took[1], 2),
        "frame_sdr_db": {stem: rounded(found) for stem, (found, _) in medians.items() if found is not None},
        "won_db": {
            stem: rounded(found - before)
            for stem, (found, before) in medians.items()
            if found is not None and before is not None
        },
        "mean_won_db": rounded(float(np.mean(won))),
        "least_won_db": rounded(min(won)),
        "songs": [{**song, "seconds": rounded(song["seconds"])} for song in songs],
    }  # fmt: skip


def _median(songs: list[dict[str, Any]], stem: str) -> float | None:
    found = [song["frame_sdr_db"][stem] for song in songs if stem in song["frame_sdr_db"]]
    return float(np.median(found)) if found else None
