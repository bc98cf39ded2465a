"""Rendered files -> what lies in the song's folder: analysis, level, names, formats, tags, sessions, loops.

A plain delivery is what was rendered and a REAPER session. Of any other, the rendered files are only the material:

    analyse -> one gain -> names -> encode and tag -> sessions -> loops, .stem.mp4

The stems are what counts: whatever else fails becomes a warning in the manifest.

What is made of a song's delivered stems beside them: loops cut on the grid, and a .stem.mp4.
"""

from __future__ import annotations

import errno
import logging
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePath
from typing import TypeVar

import torch

from tsbs_daw import __version__
from tsbs_daw.audio.encoders import file_ending
from tsbs_daw.audio.tags import Tags, read_tags
from tsbs_daw.contracts.analysis import Analysis
from tsbs_daw.contracts.manifest import FileEntry, OtherFile
from tsbs_daw.core.errors import AnalysisError, JobCancelled, LeaseLost, NoSpaceLeft
from tsbs_daw.core.files import write_synced
from tsbs_daw.pipeline import analyse, sessions
from tsbs_daw.pipeline.encode import Encoding, entry_of, format_for, shared_gain
from tsbs_daw.pipeline.naming import Facts, facts_of, file_names, song_name
from tsbs_daw.pipeline.publish import remove_folder
from tsbs_daw.pipeline.render import SOURCE_COLOR, SOURCE_NAME, Rendered, Rendering
from tsbs_daw.pipeline.resolve import Request
from tsbs_daw.pipeline.separate import Progress
from tsbs_daw.pipeline.stem_cache import CachedStems, cache_key
from tsbs_daw.pipeline.stopwatch import Stopwatch
from tsbs_daw.sessions.dawproject import write_dawproject
from tsbs_daw.sessions.rpp import write_rpp
from tsbs_daw.sessions.session import Session, SessionTrack

log = logging.getLogger(__name__)

LOOPS = "loops"  # the folder inside the song's


@dataclass(frozen=True)
class StemAudio:
    """A delivered dry stem. name: the model's"""

    name: str
    color: str
    path: Path


def write_loops(audio: Sequence[StemAudio], facts: Facts, folder: Path, bars: int, name: str) -> list[str]:
    """Loops of so many bars from every stem, but for silent ones.

    Args:    name: what all loops' names begin with
    Returns: the files, relative to the song's `folder`, with forward slashes
    Raises:  AnalysisError: the song's bars are not known, or there are fewer of them
    """
    from tsbs_daw.pipeline.loops import cut_loops  # only when it is asked for

    into = folder / LOOPS
    into.mkdir(exist_ok=True)
    stems = {stem.name: stem.path for stem in audio}
    key = facts.sure_key
    try:
        made = cut_loops(
            stems, facts.analysis.beats, bars=bars, folder=into, name=name, key=key.name if key else None
        )  # fmt: skip
    finally:
        if not any(into.iterdir()):
            into.rmdir()
    if not made:
        raise AnalysisError("the song has fewer bars")
    return [path.relative_to(folder).as_posix() for path in made]


def write_stems(path: Path, master: Path, audio: Sequence[StemAudio], facts: Facts, tags: Tags) -> None:
    """A .stem.mp4: the song, and its stems as tracks of one file. Raises: OutputError, NoSpaceLeft, AudioError"""
    from tsbs_daw.audio.stem_mp4 import write_stem_mp4

    stems = [(stem.name, stem.color, stem.path) for stem in audio]
    key = facts.sure_key
    write_stem_mp4(path, master, stems, tags, bpm=facts.sure_bpm, key=key.name if key else None)


RAW = ".rendered"  # where the material lies, inside the song's folder before that is published
ANALYSING_SHARE, WRITING_SHARE = 0.82, 0.92  # of the progress bar: where these begin
DEFAULT_NAMES = "{song} [{bpm} BPM {camelot}] {stem}"  # of loops, where the preset names nothing
SESSION_ENDINGS = {"rpp": ".RPP", "dawproject": ".dawproject"}

T = TypeVar("T")


@dataclass(frozen=True)
class Finished:
    """What the manifest says of the folder's content."""

    stems: tuple[FileEntry, ...]
    sessions: tuple[str, ...]
    artist: str = ""
    title: str = ""
    format: str = "wav32f"
    gain_db: float = 0.0
    analysis: str | None = None
    others: tuple[OtherFile, ...] = ()
    warnings: tuple[str, ...] = ()


@dataclass
class Finisher:
    """The last part of one run.

    folder: the song's, before it is published
    """

    request: Request
    cached: CachedStems
    rendering: Rendering
    folder: Path
    watch: Stopwatch
    progress: Progress
    cancelled: Callable[[], bool]
    warnings: list[str] = field(default_factory=list)

    @property
    def raw(self) -> Path:
        return raw_folder(self.request, self.folder)

    @property
    def start_samples(self) -> int:
        return self.cached.about.time_reference_samples + self.request.job.source.start_samples

    def finish(self) -> Finished:
        """Raises: OutputError, NoSpaceLeft, JobCancelled"""
        if self.request.delivery.plain:
            with self.watch.step("session"):
                files = self.rendering.files
                with ThreadPoolExecutor(torch.get_num_threads(), "hash") as pool:
                    entries = tuple(pool.map(entry_of, (self.folder / one.file for one in files), files))
                return Finished(entries, self._sessions(self._session(sessions.bare_tracks(entries))))
        tags = read_tags(self.request.job.source.path)
        facts = facts_of(self.request.song, tags.artist, tags.title)
        if self.request.delivery.analyses:
            with self.watch.step("analyse"):
                facts = replace(facts, analysis=self._try("analysis", self._analyse))
        with self.watch.step("write"):
            encoding, made = self._write(facts, tags)
        with self.watch.step("session"):
            written = self._sessions(self._full_session(made, facts))
        with self.watch.step("extras"):
            others = self._extras(encoding, made)
        remove_folder(self.raw)
        return Finished(
            stems=tuple(entry for entry, _ in made),
            sessions=written,
            artist=facts.artist,
            title=facts.title,
            format=encoding.form,
            gain_db=encoding.gain_db,
            analysis=analyse.FILE_NAME if facts.analysis else None,
            others=others,
            warnings=tuple(dict.fromkeys(self.warnings)),
        )

    def _try(self, what: str, make: Callable[[], T]) -> T | None:
        """What is not worth the stems: None, and a warning, if it fails. A full disk and a lost job are not its own."""
        if self.cancelled():
            raise JobCancelled("The job was cancelled.")
        try:
            return make()
        except (JobCancelled, LeaseLost, NoSpaceLeft):
            raise
        except Exception as error:
            if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise
            log.warning("job %s: no %s", self.request.job.id, what, exc_info=True)
            reason = str(error).replace(f"{self.folder}{os.sep}", "")  # which has another name by tomorrow
            reason = " ".join(reason.split()).rstrip(".") or type(error).__name__
            self.warnings.append(f"The {what} could not be made ({reason}); the stems are complete.")
            return None

    def _analyse(self) -> Analysis:
        def report(share: float) -> None:
            self.progress(ANALYSING_SHARE + share * (WRITING_SHARE - ANALYSING_SHARE), "analysing")

        report(0.0)
        about, rendering = self.cached.about, self.rendering
        kept = analyse.AnalysisCache(self.request.cache)
        key = cache_key(stems=self.cached.folder.name, null=self.request.job.null, version=__version__)
        found = kept.find(key)
        if found is None:
            found = analyse.analyse_apart(
                self.raw / rendering.mixture.file,
                {file.sources[0]: self.raw / file.file for file in rendering.files if file.kind == "stem"},
                about.samples / about.sample_rate,
                report=report,
                cancelled=self.cancelled,
            )
            kept.keep(key, found)
        write_synced(self.folder / analyse.FILE_NAME, found.model_dump_json(by_alias=True, indent=1))
        self.warnings.extend(found.notes)
        return found

    def _write(self, facts: Facts, tags: Tags) -> tuple[Encoding, list[tuple[FileEntry, Rendered]]]:
        """Every delivered file, encoded; the material of each is removed at once, which a full disk is grateful for."""
        delivery, rendering = self.request.delivery, self.rendering
        form, complaint = format_for(delivery.format, self.cached.about.channels)
        mixture = rendering.mixture
        levels = [file.levels for file in rendering.files] + ([rendering.stems_sum] if rendering.stems_sum else [])
        gain_db, remark = shared_gain(replace(delivery, format=form), mixture and mixture.levels, levels)
        self.warnings.extend((*complaint, *remark))
        files = [*rendering.files, *([mixture] if delivery.source == "copy" else [])]
        names = file_names(delivery.names or "{stem}", facts.fields, [file.name for file in files], file_ending(form))
        encoding = Encoding(form, gain_db, self.start_samples, facts, tags)
        done, total = 0, max(1, len(files) * self.cached.about.samples)

        def report(samples: int) -> None:
            nonlocal done
            done += samples
            self.progress(WRITING_SHARE + (0.99 - WRITING_SHARE) * done / total, "writing")

        made = []
        for rendered, name in zip(files, names, strict=True):
            raw = self.raw / rendered.file
            entry, remarks = encoding.encode(
                raw, rendered, self.folder / name, report=report, cancelled=self.cancelled
            )  # fmt: skip
            raw.unlink()
            self.warnings.extend(remarks)
            made.append((entry, rendered))
        return encoding, made

    def _session(self, tracks: tuple[SessionTrack, ...]) -> Session:
        about = self.cached.about
        return Session(self.request.song, about.sample_rate, self.start_samples, about.samples, about.channels, tracks)

    def _full_session(self, made: list[tuple[FileEntry, Rendered]], facts: Facts) -> Session:
        tracks = sessions.grouped_tracks((entry, rendered.sources) for entry, rendered in made)
        if self.request.delivery.source == "reference" and (reference := self._reference()):
            tracks += (reference,)
        session, markers = self._session(tracks), self.request.delivery.markers
        return self._try("grid of the session", lambda: sessions.with_analysis(session, facts, markers)) or session

    def _reference(self) -> SessionTrack | None:
        """The song where it lies; None of a portion, which a DAW would show with the rest of the file, and where the
        path is such that no session can hold it."""
        job = self.request.job
        path = Path(job.deliver.get("watched", job.source.path))
        if job.source.start_samples or job.source.length_samples is not None or not path.is_file():
            return None
        if not str(path).isprintable() or all(mark in str(path) for mark in "\"'`"):
            return None
        return SessionTrack(SOURCE_NAME, PurePath(path).as_posix(), SOURCE_COLOR, muted=True, outside=True)

    def _sessions(self, session: Session) -> tuple[str, ...]:
        """Raises: OutputError: the REAPER session, which is the usual one, cannot be written"""
        written = []
        for kind in self.request.delivery.sessions:
            path = self.folder / f"{self.request.song}{SESSION_ENDINGS[kind]}"
            if kind == "rpp":
                write_rpp(session, path)
            elif not self._try("DAWproject", lambda path=path: self._write_dawproject(session, path)):
                continue
            written.append(path.name)
        return tuple(written)

    def _write_dawproject(self, session: Session, path: Path) -> bool:
        write_dawproject(session, path, embed=self.request.delivery.embed)
        return True

    def _extras(self, encoding: Encoding, made: list[tuple[FileEntry, Rendered]]) -> tuple[OtherFile, ...]:
        """Loops and .stem.mp4, of the dry stems as they were delivered."""
        delivery, facts, folder = self.request.delivery, encoding.facts, self.folder
        dry = [StemAudio(r.sources[0], r.color, folder / entry.file) for entry, r in made if entry.kind == "stem"]
        found: list[OtherFile] = []
        if delivery.loops and facts.analysis is not None:
            name = song_name(delivery.names or DEFAULT_NAMES, facts.fields, facts.song)
            for bars in delivery.loops:
                loops = self._try(
                    f"set of loops of {bars} bars", lambda bars=bars: write_loops(dry, facts, folder, bars, name)
                )
                found += [OtherFile(kind="loop", file=file) for file in loops or ()]
        if delivery.stem_mp4:
            copied = (folder / entry.file for entry, _ in made if entry.kind == "source")
            master = next(copied, None) or self._master(encoding)
            path = folder / f"{facts.song}.stem.mp4"
            if self._try(".stem.mp4", lambda: write_stems(path, master, dry, facts, encoding.song_tags) or True):
                found.append(OtherFile(kind="stem.mp4", file=path.name))
        return tuple(found)

    def _master(self, encoding: Encoding) -> Path:
        """The mixture at the stems' level, as material."""
        mixture = self.rendering.mixture
        path = self.raw / "master.wav"
        replace(encoding, form="wav32f").encode(
            self.raw / mixture.file, mixture, path, report=lambda samples: None, cancelled=self.cancelled
        )
        return path


def raw_folder(request: Request, folder: Path) -> Path:
    """Where the rendered files go: where they stay, or where material lies."""
    return folder if request.delivery.plain else folder / RAW
