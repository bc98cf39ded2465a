"""Turn rendered files into the content of the song's folder: analysis, level, names, formats, tags, sessions, loops.

A plain delivery consists of the rendered files and a REAPER session. For every other delivery, the rendered files are
intermediate files:

    analyse -> one gain -> names -> encode and tag -> sessions -> loops, .stem.mp4

Only the stems are essential: if anything else fails, the manifest gets a warning and the delivery continues.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path, PurePath
from typing import TypeVar

import torch

from tsbs_daw import __version__
from tsbs_daw.analysis import analyse
from tsbs_daw.audio.encoders import file_ending
from tsbs_daw.audio.tags import Tags, read_tags
from tsbs_daw.contracts.analysis import Analysis
from tsbs_daw.contracts.manifest import AudioFile, OtherFile
from tsbs_daw.core.errors import AnalysisError, JobCancelled, LeaseLost, NoSpaceLeft
from tsbs_daw.core.files import disk_is_full, write_synced
from tsbs_daw.pipeline.passes import SeparatedSong
from tsbs_daw.pipeline.publish import remove_folder
from tsbs_daw.pipeline.render import (
    SOURCE_COLOR,
    SOURCE_NAME,
    Encoding,
    Rendering,
    delivered_file,
    format_for,
    shared_gain,
)
from tsbs_daw.pipeline.resolve import JobContext, ResolvedJob
from tsbs_daw.pipeline.song_info import (
    SongInfo,
    bare_tracks,
    file_names,
    grouped_tracks,
    info_from_tags,
    song_name,
    with_analysis,
)
from tsbs_daw.pipeline.stem_cache import cache_key
from tsbs_daw.sessions.dawproject import write_dawproject
from tsbs_daw.sessions.rpp import write_rpp
from tsbs_daw.sessions.session import Session, SessionTrack

log = logging.getLogger(__name__)

LOOPS = "loops"  # subfolder of the song's folder


@dataclass(frozen=True)
class StemAudio:
    """A delivered dry stem. `name` is its name in the model."""

    name: str
    color: str
    path: Path


def stem_name(file: AudioFile) -> str:
    """Return the name of a dry stem in the model; the file's name differs if an output has the same name."""
    return file.sources[0] if len(file.sources) == 1 else file.name


def beside_its_whole(file: AudioFile, stems: Sequence[AudioFile]) -> bool:
    """Return whether a stem that contains this one is delivered, too."""
    wholes = {folder for folder in file.folders if folder != stem_name(file)}
    return any(stem_name(other) in wholes for other in stems)


def write_loops(audio: Sequence[StemAudio], info: SongInfo, folder: Path, bars: int, name: str) -> list[str]:
    """Cut every stem into loops of `bars` bars and write those that are not silent.

    Args:
        audio: The delivered dry stems.
        info: The song with its analysis.
        folder: The song's folder.
        bars: Length of a loop.
        name: Common start of the loops' names.

    Returns:
        The files, relative to `folder`, with forward slashes.

    Raises:
        AnalysisError: The song's bars are unknown, or it has fewer than `bars`.
    """
    from tsbs_daw.pipeline.loops import cut_loops  # imported only if loops are requested

    assert info.analysis is not None, "loops are cut by its beats"
    into = folder / LOOPS
    into.mkdir(exist_ok=True)
    stems = {stem.name: stem.path for stem in audio}
    key = info.sure_key
    try:
        paths = cut_loops(
            stems, info.analysis.beats, bars=bars, folder=into, name=name, key=key.name if key else None
        )  # fmt: skip
    finally:
        if not any(into.iterdir()):
            into.rmdir()
    if not paths:
        raise AnalysisError("the song has fewer bars")
    return [path.relative_to(folder).as_posix() for path in paths]


def write_stems(path: Path, master: Path, audio: Sequence[StemAudio], info: SongInfo, tags: Tags) -> None:
    """Write a .stem.mp4: one file with the song and every stem as separate tracks.

    Args:
        path: The file to write.
        master: File of the mixture.
        audio: The stems.
        info: The song with its analysis.
        tags: Tags for the file.

    Raises:
        OutputError, NoSpaceLeft, AudioError
    """
    from tsbs_daw.audio.stem_mp4 import write_stem_mp4

    stems = [(stem.name, stem.color, stem.path) for stem in audio]
    key = info.sure_key
    write_stem_mp4(path, master, stems, tags, bpm=info.sure_bpm, key=key.name if key else None)


RAW = ".rendered"  # subfolder of the staged folder for intermediate files
DEFAULT_NAMES = "{song} [{bpm} BPM {camelot}] {stem}"  # name template of loops if the preset has none
SESSION_ENDINGS = {"rpp": ".RPP", "dawproject": ".dawproject"}

T = TypeVar("T")


@dataclass(frozen=True)
class Delivered:
    """The content of the song's folder, as the manifest describes it."""

    stems: tuple[AudioFile, ...]
    sessions: tuple[str, ...]
    artist: str = ""
    title: str = ""
    format: str = "wav32f"
    gain_db: float = 0.0
    analysis: str | None = None
    others: tuple[OtherFile, ...] = ()
    warnings: tuple[str, ...] = ()


@dataclass
class Delivery:
    """The last part of a run: writes everything in a song's folder except the manifest. Use `deliver`.

    Attributes:
        folder: The staged folder of the song.
        warnings: Warnings for the manifest.
    """

    resolved: ResolvedJob
    separated: SeparatedSong
    rendering: Rendering
    folder: Path
    context: JobContext
    warnings: list[str] = field(default_factory=list)

    @property
    def raw(self) -> Path:
        return raw_folder(self.resolved, self.folder)

    @property
    def mixture(self) -> AudioFile:
        """The rendered mixture, for a delivery that needs it."""
        assert self.rendering.mixture is not None, "the delivery asked for it"
        return self.rendering.mixture

    @property
    def start_samples(self) -> int:
        return self.separated.about.time_reference_samples + self.resolved.job.source.start_samples

    def deliver(self) -> Delivered:
        """Write the files. See `deliver`."""
        if self.resolved.delivery.plain:
            with self.context.timings.step("session"):
                files = self.rendering.files
                with ThreadPoolExecutor(torch.get_num_threads(), "hash") as pool:
                    entries = tuple(pool.map(delivered_file, files, (self.folder / file.file for file in files)))
                return Delivered(entries, self._sessions(self._session(bare_tracks(entries))))
        tags = read_tags(self.resolved.job.source.path)
        info = info_from_tags(self.resolved.song, tags.artist, tags.title)
        if self.resolved.delivery.analyses:
            with self.context.timings.step("analyse"):
                info = replace(info, analysis=self._try("analysis", self._analyse))
        with self.context.timings.step("write"):
            encoding, made = self._write(info, tags)
        with self.context.timings.step("session"):
            written = self._sessions(self._full_session(made, info))
        with self.context.timings.step("extras"):
            others = self._extras(encoding, made)
        remove_folder(self.raw)
        return Delivered(
            stems=tuple(made),
            sessions=written,
            artist=info.artist,
            title=info.title,
            format=encoding.format,
            gain_db=encoding.gain_db,
            analysis=analyse.FILE_NAME if info.analysis else None,
            others=others,
            warnings=tuple(dict.fromkeys(self.warnings)),
        )

    def _try(self, what: str, make: Callable[[], T]) -> T | None:
        """Call `make`; if it fails, add a warning and return None.

        A full disk, a cancelled job and a lost lease concern the whole job and are raised.
        """
        self.context.check_cancelled()
        try:
            return make()
        except (JobCancelled, LeaseLost, NoSpaceLeft):
            raise
        except Exception as error:
            if disk_is_full(error):
                raise
            log.warning("job %s: cannot make the %s", self.resolved.job.id, what, exc_info=True)
            reason = str(error).replace(f"{self.folder}{os.sep}", "")  # the staged folder is about to be renamed
            reason = " ".join(reason.split()).rstrip(".") or type(error).__name__
            self.warnings.append(f"The {what} could not be made ({reason}); the stems are complete.")
            return None

    def _analyse(self) -> Analysis:
        def report(share: float) -> None:
            self.context.report("analyse", share, "analysing")

        report(0.0)
        about, rendering = self.separated.about, self.rendering
        cache = analyse.AnalysisCache(self.resolved.cache)
        key = cache_key(stems=self.separated.key, residual=self.resolved.residual, version=__version__)
        analysis = cache.find(key)
        if analysis is None:
            analysis = analyse.analyse_apart(
                self.raw / self.mixture.file,
                {stem: self.raw / rendering.dry[stem].file for stem in about.stems},
                about.samples / about.sample_rate,
                report=report,
                cancelled=self.context.cancelled,
            )
            cache.keep(key, analysis)
        write_synced(self.folder / analyse.FILE_NAME, analysis.model_dump_json(by_alias=True, indent=1))
        self.warnings.extend(analysis.notes)
        return analysis

    def _write(self, info: SongInfo, tags: Tags) -> tuple[Encoding, list[AudioFile]]:
        """Encode every delivered file, and remove each rendered file as soon as it is encoded, to save disk space."""
        delivery, rendering = self.resolved.delivery, self.rendering
        fmt, complaint = format_for(delivery.format, self.separated.about.channels)
        levels = [*rendering.files] + ([rendering.stems_sum] if rendering.stems_sum else [])
        gain_db, remark = shared_gain(delivery.model_copy(update={"format": fmt}), rendering.mixture, levels)
        self.warnings.extend((*complaint, *remark))
        files = [*rendering.files, *([self.mixture] if delivery.source == "copy" else [])]
        names = file_names(delivery.names or "{stem}", info.fields, [file.name for file in files], file_ending(fmt))
        encoding = Encoding(fmt, gain_db, self.start_samples, info, tags)
        done, total = 0, max(1, len(files) * self.separated.about.samples)

        def report(samples: int) -> None:
            nonlocal done
            done += samples
            self.context.report("write", done / total, "writing")

        made = []
        for rendered, name in zip(files, names, strict=True):
            raw = self.raw / rendered.file
            entry, remarks = encoding.encode(
                raw, rendered, self.folder / name, report=report, context=self.context
            )  # fmt: skip
            raw.unlink()
            self.warnings.extend(remarks)
            made.append(entry)
        return encoding, made

    def _session(self, tracks: tuple[SessionTrack, ...]) -> Session:
        about = self.separated.about
        return Session(self.resolved.song, about.sample_rate, self.start_samples, about.samples, about.channels, tracks)

    def _full_session(self, made: list[AudioFile], info: SongInfo) -> Session:
        tracks = grouped_tracks((file, file.sources) for file in made)
        if self.resolved.delivery.source == "reference" and (reference := self._reference()):
            tracks += (reference,)
        session, markers = self._session(tracks), self.resolved.delivery.markers
        return self._try("grid of the session", lambda: with_analysis(session, info, markers)) or session

    def _reference(self) -> SessionTrack | None:
        """Return a track that refers to the source file.

        None for a portion of a file, because a DAW would show the whole file, and for a path that a session cannot
        express.
        """
        job = self.resolved.job
        path = Path(job.deliver.get("watched", job.source.path))
        if job.source.start_samples or job.source.length_samples is not None or not path.is_file():
            return None
        if not str(path).isprintable() or all(mark in str(path) for mark in "\"'`"):
            return None
        return SessionTrack(SOURCE_NAME, PurePath(path).as_posix(), SOURCE_COLOR, muted=True, outside=True)

    def _sessions(self, session: Session) -> tuple[str, ...]:
        """Write the requested sessions and return their names.

        Raises:
            OutputError: The REAPER session cannot be written. For other sessions, the manifest gets a warning.
        """
        written = []
        for kind in self.resolved.delivery.sessions:
            path = self.folder / f"{self.resolved.song}{SESSION_ENDINGS[kind]}"
            if kind == "rpp":
                write_rpp(session, path)
            elif not self._try("DAWproject", partial(self._write_dawproject, session, path)):
                continue
            written.append(path.name)
        return tuple(written)

    def _write_dawproject(self, session: Session, path: Path) -> bool:
        write_dawproject(session, path, embed=self.resolved.delivery.embed)
        return True

    def _extras(self, encoding: Encoding, made: list[AudioFile]) -> tuple[OtherFile, ...]:
        """Make loops and the .stem.mp4 from the delivered dry stems."""
        delivery, info, folder = self.resolved.delivery, encoding.song, self.folder
        stems = [file for file in made if file.kind == "stem"]
        dry = [StemAudio(stem_name(file), file.color, folder / file.file) for file in stems]
        others: list[OtherFile] = []
        if delivery.loops and info.analysis is not None:
            name = song_name(delivery.names or DEFAULT_NAMES, info.fields, info.song)
            for bars in delivery.loops:
                cut = partial(write_loops, dry, info, folder, bars, name)
                loops = self._try(f"set of loops of {bars} bars", cut)
                others += [OtherFile(kind="loop", file=file) for file in loops or ()]
        if delivery.stem_mp4:
            copied = (folder / file.file for file in made if file.kind == "source")
            master = next(copied, None) or self._master(encoding)
            path = folder / f"{info.song}.stem.mp4"
            wholes = [audio for audio, file in zip(dry, stems, strict=True) if not beside_its_whole(file, stems)]

            def write() -> bool:
                write_stems(path, master, wholes, info, encoding.song_tags)
                return True

            if self._try(".stem.mp4", write):
                others.append(OtherFile(kind="stem.mp4", file=path.name))
        return tuple(others)

    def _master(self, encoding: Encoding) -> Path:
        """Write the mixture at the level of the stems, as an intermediate file."""
        mixture = self.mixture
        path = self.raw / "master.wav"
        replace(encoding, format="wav32f").encode(
            self.raw / mixture.file, mixture, path, report=lambda samples: None, context=self.context
        )
        return path


def raw_folder(resolved: ResolvedJob, folder: Path) -> Path:
    """Return the folder for the rendered files: the song's own, or that for intermediate files."""
    return folder if resolved.delivery.plain else folder / RAW


def deliver(
    resolved: ResolvedJob, separated: SeparatedSong, rendering: Rendering, folder: Path, context: JobContext
) -> Delivered:
    """Write everything in a song's folder except the manifest.

    Args:
        resolved: The job.
        separated: The song's stems.
        rendering: The rendered files, in `raw_folder`.
        folder: The staged folder of the song.
        context: Progress, cancellation and timings.

    Returns:
        The content of the folder for the manifest.

    Raises:
        OutputError: A stem or the REAPER session cannot be written.
        NoSpaceLeft: The disk is full.
        JobCancelled: The job was cancelled.
    """
    return Delivery(resolved, separated, rendering, folder, context).deliver()
