"""Render stems into a song's files: dry stems, the preset's outputs and, if needed, the mixture; then encode them.

The rendered files are 32-bit float WAVs, measured while they are written. Blocks pass through the effects, writers and
meters of all files in parallel, on the cores that the network no longer uses.

For delivery, they get their gain, format, names and tags. All files of a song get the same gain, so their balance does
not change, and the stems still sum to the mixture.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import soundfile
import torch

from tsbs_daw.audio.dsp import Levels, Meter, db, gain
from tsbs_daw.audio.encoders import MOST_CHANNELS, delivery_format, open_writer
from tsbs_daw.audio.tags import Labels, Tags
from tsbs_daw.audio.writer import AudioWriter
from tsbs_daw.contracts.manifest import AudioFile
from tsbs_daw.core.files import file_sha256
from tsbs_daw.effects.chain import OutputRenderer
from tsbs_daw.pipeline.passes import DryTrack, SeparatedSong, StemTree, dry_tracks, total
from tsbs_daw.pipeline.resolve import JobContext
from tsbs_daw.pipeline.song_info import SongInfo, short_key
from tsbs_daw.pipeline.stem_cache import RESIDUAL, Separation
from tsbs_daw.presets.delivery import DeliveryOptions
from tsbs_daw.presets.preset import Preset

log = logging.getLogger(__name__)

# A palette that is safe for colour blindness (Okabe and Ito). Other stems cycle through MORE_COLORS.
STEM_COLORS = {"vocals": "#56b4e9", "drums": "#e69f00", "bass": "#009e73", "other": "#cc79a7"}
SOURCE_COLOR = "#757575"
SOURCE_NAME = "source"
MIXTURE_FILE = ".mixture.wav"  # cannot clash: stem names do not begin with a dot
MORE_COLORS = ("#f0e442", "#0072b2", "#d55e00", "#999999")

CEILING_DB = -1.0  # maximum true peak in dBTP, as EBU R 128 and streaming services require
BLOCK_SAMPLES = 65536
BEATS_PER_BAR = 4  # if the metre is unknown or doubtful
FALLBACK = "wav24"  # holds any number of channels
UNLIMITED = ("wav32f",)  # formats that hold samples beyond full scale


@dataclass(frozen=True)
class Rendering:
    """The rendered files of a song.

    Attributes:
        files: The delivered files.
        dry: Every dry stem that was written, delivered or not, by its name in the model.
        residual_db: Level of the residual relative to the mixture; None if either is silent.
        mixture: The song itself, if requested.
        stems_sum: Levels of the sum of the dry stems, if the mixture was requested.
    """

    files: tuple[AudioFile, ...]
    dry: dict[str, AudioFile]
    residual_db: float | None
    mixture: AudioFile | None = None
    stems_sum: Levels | None = None


@dataclass
class _Track:
    """A file that is being written."""

    file: AudioFile
    renderer: OutputRenderer | None
    delivered: bool
    writer: AudioWriter = field(repr=False)
    meter: Meter = field(repr=False)

    def measured(self) -> AudioFile:
        return self.file.model_copy(update=level_fields(self.meter.levels()))


def render(
    separated: SeparatedSong,
    preset: Preset,
    folder: Path,
    *,
    stems: tuple[str, ...] | None = None,
    residual: Literal["share", "separate", "drop"] = "share",
    time_reference_samples: int,
    description: str,
    context: JobContext,
    with_mixture: bool = False,
    every_stem: bool = False,
) -> Rendering:
    """Write every file of the song into `folder`, block by block.

    Args:
        separated: The song's stems.
        preset: The preset with its outputs.
        folder: Existing folder for the files.
        stems: The dry stems to write, with `REST` for the sum of the others; None for all.
        residual: Share the residual among the stems, write it as a stem of its own, or drop it.
        time_reference_samples: Position of the song in its session.
        description: Description in the files' BWF header.
        with_mixture: Also write the mixture, and measure it and the sum of the stems.
        every_stem: Also write the model's other dry stems, as intermediate files.
        context: Progress, cancellation and timings.

    Raises:
        EffectError, OutputError, NoSpaceLeft
    """
    about, tree = separated.about, separated.tree
    left_out, done = 0.0, 0
    message = "effects" if preset.outputs else "writing"
    with ExitStack() as files:
        dry = dry_tracks(tree, stems, residual == "separate", every_stem)
        tracks = _tracks(files, about, tree, preset, dry, folder, time_reference_samples, description, with_mixture)
        renderers = [track.renderer for track in tracks if track.renderer]
        writers, meters = [track.writer for track in tracks], [track.meter for track in tracks]
        stems_sum = Meter(about.sample_rate, about.channels)
        # Entered last, so it exits first: no file is closed while a thread still writes to it.
        pool = files.enter_context(ThreadPoolExecutor(torch.get_num_threads(), "render"))

        def each(step: str, work: Callable[..., Any], *values: Iterable[Any]) -> list[Any]:
            with context.timings.step(step):
                return list(pool.map(work, *values))

        for parts, left in context.timings.each("read stems", separated.blocks(share=residual == "share")):
            done += left.shape[1]
            named = parts | {RESIDUAL: left}
            audio = [total([named[source] for source in track.sources]) for track in dry]
            measured = list(meters)
            if renderers:
                process = partial(OutputRenderer.process, stems=parts, last=done == about.samples)
                audio = each("effects", process, renderers) + audio
            if with_mixture:
                together = np.asarray(np.sum([parts[stem] for stem in tree.stems], axis=0, dtype=np.float64))
                audio += [(together + left).astype(np.float32), together.astype(np.float32)]
                measured.append(stems_sum)
            each("write", AudioWriter.write, writers, audio)  # the last array, the sum of stems, is only measured
            each("measure", Meter.add, measured, audio)
            left_of_all = total([left, *(parts[step.residual] for step in tree.passes)])
            left_out += float(np.square(left_of_all, dtype=np.float64).sum())
            context.report("render", done / max(1, about.samples), message)
        each("write", AudioWriter.close, writers)
    finished = [(track.measured(), track.delivered) for track in tracks]
    return Rendering(
        tuple(file for file, delivered in finished if delivered and file.kind != "source"),
        {file.sources[0]: file for file, _ in finished if file.kind == "stem" and len(file.sources) == 1},
        _residual_db(left_out, about),
        finished[-1][0] if with_mixture else None,
        stems_sum.levels() if with_mixture else None,
    )


def _tracks(
    files: ExitStack,
    about: Separation,
    tree: StemTree,
    preset: Preset,
    dry: list[DryTrack],
    folder: Path,
    time_reference_samples: int,
    description: str,
    with_mixture: bool,
) -> list[_Track]:
    """Open every file until `files` is closed: the outputs, the dry stems, and the mixture last."""

    def track(
        name: str,
        kind: Literal["stem", "output", "source"],
        file: str,
        color: str,
        muted: bool,
        sources: tuple[str, ...],
        renderer: OutputRenderer | None = None,
        delivered: bool = True,
        folders: tuple[str, ...] = (),
    ) -> _Track:
        writer = AudioWriter(
            folder / file, about.sample_rate, about.channels,
            time_reference_samples=time_reference_samples, description=description,
        )  # fmt: skip
        meter = Meter(about.sample_rate, about.channels)
        audio_file = AudioFile(
            name=name, kind=kind, file=file, color=color, muted=muted, folders=folders, sources=sources, size_bytes=0
        )  # fmt: skip
        return _Track(audio_file, renderer, delivered, files.enter_context(writer), meter)

    tracks = []
    for o in preset.outputs:
        renderer = files.enter_context(OutputRenderer(o, about.sample_rate, about.channels))
        roots = tuple(dict.fromkeys(tree.root(source) for source in o.sources))
        tracks.append(track(o.name, "output", f"{o.name}.wav", o.color, False, roots, renderer))
    names = dry_names([stem.name for stem in dry], {output.name for output in preset.outputs})
    for place, (stem, name) in enumerate(zip(dry, names, strict=True)):
        color, muted = stem_color(stem.name, place), bool(preset.outputs) or stem.muted
        tracks.append(
            track(
                name, "stem", f"{name}.wav", color, muted, stem.sources,
                delivered=stem.delivered, folders=stem.folders,
            )
        )  # fmt: skip
    if with_mixture:
        tracks.append(track(SOURCE_NAME, "source", MIXTURE_FILE, SOURCE_COLOR, True, about.stems))
    return tracks


def level_fields(measured: Levels | AudioFile, gain_db: float = 0.0) -> dict[str, float | None]:
    """Return levels as fields of an AudioFile.

    Args:
        measured: The measured levels.
        gain_db: Gain applied to the file after it was measured.
    """
    names = ("sample_peak_db", "true_peak_db", "rms_db", "loudness_lufs")
    values = ((name, getattr(measured, name)) for name in names)
    return {name: None if value is None else value + gain_db for name, value in values}


def dry_names(stems: Sequence[str], taken: set[str]) -> list[str]:
    """Return the file names of the dry stems: their own, or "vocals (dry)" if an output has the same name."""
    lower = {name.casefold() for name in taken}
    return [f"{stem} (dry)" if stem.casefold() in lower else stem for stem in stems]


def stem_color(stem: str, place: int) -> str:
    return STEM_COLORS.get(stem, MORE_COLORS[place % len(MORE_COLORS)])


def _residual_db(energy: float, about: Separation) -> float | None:
    rms = np.sqrt(energy / max(1, about.samples * about.channels))
    return db(rms / about.mixture_rms) if about.mixture_rms else None


def shared_gain(
    delivery: DeliveryOptions, mixture: AudioFile | Levels | None, files: Iterable[AudioFile | Levels]
) -> tuple[float, tuple[str, ...]]:
    """Compute the gain that all files of a song get.

    With a loudness target, the gain brings the mixture to the target, or as close as possible with no true peak above
    -1 dBTP. Without one, it is 0 dB, unless the format would clip a peak: then it lowers the true peak to -1 dBTP.

    Args:
        delivery: The delivery options.
        mixture: Levels of the song; None if there is no target.
        files: Levels of all delivered files, and of the sum of the stems.

    Returns:
        The gain in dB, and warnings.
    """
    levels = [*files, *([mixture] if mixture else [])]
    true_peak_db = max((level.true_peak_db for level in levels if level.true_peak_db is not None), default=None)
    sample_peak_db = max((level.sample_peak_db for level in levels if level.sample_peak_db is not None), default=None)
    if true_peak_db is None:
        return 0.0, ()
    room_db = CEILING_DB - true_peak_db
    if delivery.loudness_lufs is None:
        if delivery.format in UNLIMITED or sample_peak_db is None or sample_peak_db <= 0:
            return 0.0, ()
        return room_db, (f"All files are {-room_db:.1f} dB lower, because {delivery.format} would clip their peaks.",)
    target = f"The loudness of {delivery.loudness_lufs:g} LUFS"
    if mixture is None or mixture.loudness_lufs is None:
        return min(0.0, room_db), (f"{target} cannot be reached: the song is too short or too quiet to have one.",)
    wanted_db = delivery.loudness_lufs - mixture.loudness_lufs
    if wanted_db <= room_db + 0.05:  # a difference that would be shown as 0.0 dB
        return min(wanted_db, room_db), ()
    return room_db, (f"{target} is missed by {wanted_db - room_db:.1f} dB to keep all peaks below -1 dBTP.",)


@dataclass(frozen=True)
class Encoding:
    """Settings that all files of a song share.

    Attributes:
        format: One of the delivery formats, see `audio.encoders`.
        gain_db: Gain for every file.
        time_reference_samples: Position of the song in its session.
        song: Name, artist, title and analysis of the song.
        tags: Tags of the source; every file gets them, with its own title.
    """

    format: str
    gain_db: float
    time_reference_samples: int
    song: SongInfo
    tags: Tags

    @property
    def song_tags(self) -> Tags:
        """The source's tags, with artist and title from the file name if they are missing."""
        return replace(self.tags, title=self.song.title, artist=self.song.artist)

    def encode(
        self, raw: Path, rendered: AudioFile, path: Path, *, report: Callable[[int], None], context: JobContext
    ) -> tuple[AudioFile, tuple[str, ...]]:
        """Encode one file.

        Args:
            raw: The rendered file.
            rendered: Its description, with its levels.
            path: The file to write.
            report: Called with the number of samples encoded since the last call.
            context: Checked for cancellation between blocks.

        Returns:
            The delivered file, and warnings about it.

        Raises:
            OutputError, NoSpaceLeft, JobCancelled
        """
        key, (tempo_bpm, beats_per_bar) = self.song.sure_key, self._tempo()
        with soundfile.SoundFile(raw) as file, open_writer(
            path, self.format, file.samplerate, file.channels,
            time_reference_samples=self.time_reference_samples,
            description=f"{rendered.name} of {self.song.song}",
            tempo_bpm=tempo_bpm,
            beats_per_bar=beats_per_bar,
            key=key.name if key else None,
            labels=self._labels(rendered),
        ) as writer:  # fmt: skip
            for block in _encoded_blocks(file, self.gain_db):
                context.check_cancelled()
                writer.write(block)
                report(block.shape[1])
            rate, asked = writer.sample_rate, file.samplerate
        warnings: tuple[str, ...] = ()
        if writer.label_problem:
            log.warning("%s gets no tags: %s", path, writer.label_problem)
            warnings = ("The files have no tags, because the source's tags could not be copied.",)
        if rate != asked:
            container = delivery_format(self.format).container
            warnings += (f"The {container} files have {rate} Hz, because {container} does not support {asked} Hz.",)
        return delivered_file(rendered, path, self.gain_db, writer.sha256), warnings

    def _tempo(self) -> tuple[float | None, int]:
        """Return tempo and beats per bar, from which DAWs may stretch the file; no tempo unless it is steady."""
        analysis, bpm = self.song.analysis, self.song.sure_bpm
        if analysis is None or bpm is None or not analysis.tempo.steady:
            return None, BEATS_PER_BAR
        beats = analysis.beats
        return bpm, BEATS_PER_BAR if beats.meter_doubtful else beats.beats_per_bar or BEATS_PER_BAR

    def _labels(self, rendered: AudioFile) -> Labels:
        tags = self.song_tags
        if rendered.kind != "source":
            tags = replace(tags, title=f"{tags.title} ({rendered.name})")
        bpm, key = self.song.sure_bpm, self.song.sure_key
        return Labels(tags, bpm, short_key(key) if key else None)


def delivered_file(rendered: AudioFile, path: Path, gain_db: float = 0.0, sha256: str | None = None) -> AudioFile:
    """Describe a delivered file.

    Args:
        rendered: The rendered file with its measured levels.
        path: The delivered file.
        gain_db: Gain applied since the levels were measured.
        sha256: Hash of the delivered file; None to compute it.
    """
    levels = level_fields(rendered, gain_db)
    written = {"file": path.name, "size_bytes": path.stat().st_size, "sha256": sha256 or file_sha256(path)}
    return rendered.model_copy(update=levels | written)


def format_for(fmt: str, channels: int) -> tuple[str, tuple[str, ...]]:
    """Return the requested format, or `FALLBACK` if that cannot hold so many channels, and warnings."""
    container = delivery_format(fmt).container
    if channels <= MOST_CHANNELS.get(container, channels):
        return fmt, ()
    return FALLBACK, (f"The files are {FALLBACK} and not {fmt}, which cannot hold {channels} channels.",)


def _encoded_blocks(file: soundfile.SoundFile, gain_db: float) -> Iterator[np.ndarray]:
    factor = np.float32(gain(gain_db))
    while True:
        block = file.read(BLOCK_SAMPLES, dtype="float32", always_2d=True).T
        if not block.shape[1]:
            return
        yield block * factor if gain_db else block
