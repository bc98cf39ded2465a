"""How cost grows.

lengths.*    a song of 30 s, of 5 min and of an hour, the whole way
songs.*      1, 10 and 100 songs through one daemon
stems.*      networks that give 1, 2, 4 and 8 stems
overlap.*    chunk length and overlap, against SDR
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from tsbs_daw.lab.bench.probing import probe, work_folder
from tsbs_daw.lab.bench.row import Group, Options, Row

LENGTHS_S = (30.0, 300.0, 3600.0)
COUNTS = (1, 10, 100)
SONG_S = 10.0
STEMS = (1, 2, 4, 8)


def _lengths(options: Options) -> Iterator[Row]:
    """The model is loaded by a first, short song."""
    first_s = None
    for seconds in (2.0, 4.0) if options.quick else LENGTHS_S:
        with work_folder() as folder:
            first = probe("song", folder, options, file="first", seconds=1.0)["path"]
            song = probe("song", folder, options, file="song", seconds=seconds)["path"]
            found = probe("separate", folder, options, sources=[first, song])
        per_second = found["wall_s"] / found["seconds"]
        first_s = first_s or per_second
        yield Row(f"lengths.{seconds:g}", f"{seconds:g} s of song", per_second, "s per s", 1.1 * first_s)
        if found["peak_bytes"] is not None:
            yield Row(f"lengths.{seconds:g}.memory", "peak memory", found["peak_bytes"] / 1e6, "MB", 1500.0)


def _songs(options: Options) -> Iterator[Row]:
    from tsbs_daw.lab.bench.daemon import measure_queue

    counts = (1, 2) if options.quick else COUNTS
    with work_folder() as folder:
        song = Path(probe("song", folder, options, file="song", seconds=2.0 if options.quick else SONG_S)["path"])
        found = measure_queue(Path(folder), song, Path(options.model), counts)
    one_s = found[0].seconds
    for queued in found:
        target = None if queued.songs == 1 else 1.05 * one_s
        what = f"{queued.songs} queued, each"
        yield Row(f"songs.{queued.songs}", what, queued.seconds / queued.songs, "s", target)
        if queued.worker_bytes is not None:
            yield Row(f"songs.{queued.songs}.memory", "the worker after them", queued.worker_bytes / 1e6, "MB")


def _stems(options: Options) -> Iterator[Row]:
    with work_folder() as folder:
        found = probe("stems", folder, options)
    for count in STEMS:
        yield Row(f"stems.{count}", f"the bundled size with {count} stems", found[str(count)], "s per s")


def _overlap(options: Options) -> Iterator[Row]:
    with work_folder() as folder:
        table = probe("overlap", folder, options)["table"]
    for point in table:
        name = f"overlap.{point['chunk_s']:g}s.{100 * point['overlap']:.0f}"
        what = f"chunks of {point['chunk_s']:g} s, {100 * point['overlap']:.0f} % overlap"
        yield Row(f"{name}.sdr", f"{what}: mean SDR", point["sdr_db"], "dB")
        yield Row(f"{name}.cost", "that takes", point["seconds"], "s per s")


GROUPS = (
    Group("lengths", _lengths, long=True, open=True),
    Group("songs", _songs, ("songs.1",), long=True, open=True),
    Group("stems", _stems, tuple(f"stems.{count}" for count in STEMS), long=True, needs_model=False),
    Group("overlap", _overlap, long=True, open=True),
)
