"""The files of a song: what may be heard and saved of a job and of a batch's catalogue, each by an id.

An id is made from the job and the file's name by the page's secret. It is looked up among the files that the manifest
or the catalogue lists, so that nothing else can be asked for; and a file that leads out of its folder is not there.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from tsbs_daw.batch.catalogue import done_entry
from tsbs_daw.batch.page import linked_page, song_row
from tsbs_daw.batch.waveform import waveforms
from tsbs_daw.contracts.catalogue import CSV, JSON, Catalogue, SongEntry
from tsbs_daw.contracts.manifest import FILE_NAME, Manifest, read_manifest
from tsbs_daw.core.config import Settings
from tsbs_daw.core.errors import JobFormatError
from tsbs_daw.core.filenames import source_name
from tsbs_daw.queue.jobs import describe
from tsbs_daw.queue.records import JobRow
from tsbs_daw.queue.store import JobStore
from tsbs_daw.web.access import Access, Refused
from tsbs_daw.web.files import inside
from tsbs_daw.web.views import brief

_ORIGINAL = "\0original"  # no file is called so
_LOOK_UP = 4  # folders above a batch's songs in which its catalogue may lie


@dataclass(frozen=True)
class FoundCatalogue:
    """A batch's catalogue, and the folder that it lies in."""

    id: str
    name: str
    folder: Path


class Songs:
    """Args: access: makes the ids"""

    def __init__(self, settings: Settings, access: Access):
        self._settings, self._access = settings, access
        self._pictures = settings.cache / "waveforms"
        self._catalogues: dict[Path, tuple[tuple[int, int], Catalogue]] = {}

    # A job's

    def describe(self, row: JobRow) -> dict[str, Any]:
        """What the page says about a job, and what can be saved of it."""
        found = brief(describe(row))
        folder, manifest = self._delivered(row)
        saved = [] if folder is None else [PurePosixPath(name) for name, _ in self._files(folder, manifest)]
        found["folder"] = source_name(folder) if folder else ""
        found["files"] = [
            {"id": self._access.file_id(row.id, str(name)), "name": str(name), "kind": _kind(str(name), manifest)}
            for name in saved
        ]
        return found

    def player(self, row: JobRow) -> dict[str, Any]:
        """The song as the player takes it, with waveforms. Raises: Refused: there is nothing to hear"""
        folder, manifest = self._delivered(row)
        if folder is None or manifest is None:
            raise Refused(404, f"The stems of {row.song} are not there any more; retry the job.")
        out = folder.parent

        def url(file: str) -> str | None:
            inner = PurePosixPath(file).relative_to(folder.name)
            return f"/api/jobs/{row.id}/files/{self._access.file_id(row.id, str(inner))}"

        entry = done_entry(SongEntry(source=row.source_key, title=row.song), out, folder, manifest)
        entry = entry.model_copy(update={"sessions": (), "loops_folder": None, "stem_mp4": None})
        song = song_row(entry, out, url=url, cache=self._pictures)
        song["links"] = []
        original = self._original(row, manifest)
        if original is not None:
            drawn = waveforms(original.parent, str(original), [original.name], self._pictures)[original.name]
            song["files"].append(
                {
                    "name": "source",
                    "kind": "source",
                    "url": f"/api/jobs/{row.id}/files/{self._access.file_id(row.id, _ORIGINAL)}",
                    "color": "#9e9e9e",
                    "levels": drawn.levels,
                    "problem": drawn.problem,
                    "lufs": None,
                    "peakDb": None,
                }
            )
        return song | {"id": row.id}

    def file(self, row: JobRow, file_id: str) -> Path:
        """Raises: Refused: none of the job's files has this id"""
        folder, manifest = self._delivered(row)
        for name, path in self._files(folder, manifest) if folder else ():
            if self._access.file_id(row.id, name) == file_id:
                return path
        original = self._original(row, manifest)
        if original is not None and self._access.file_id(row.id, _ORIGINAL) == file_id:
            return original
        raise Refused(404, "This file is not there any more; load the page again.")

    def everything(self, row: JobRow) -> list[tuple[str, Path]]:
        """All files of a job with their names in an archive. Raises: Refused: there are none"""
        folder, manifest = self._delivered(row)
        found = [(f"{folder.name}/{name}", path) for name, path in self._files(folder, manifest)] if folder else []
        if not found:
            raise Refused(404, f"The stems of {row.song} are not there any more; retry the job.")
        return found

    def _delivered(self, row: JobRow) -> tuple[Path | None, Manifest | None]:
        try:
            folder = row.result.folder if row.result else None
        except JobFormatError:
            return None, None
        if folder is None or not folder.is_dir():
            return None, None
        return folder, read_manifest(folder)

    def _original(self, row: JobRow, manifest: Manifest | None) -> Path | None:
        """The song where it lies, to compare with; None where its stems have a copy beside them, where only a portion
        was separated, and where it is gone or has changed since."""
        if manifest is None or any(entry.kind == "source" for entry in manifest.stems):
            return None
        if manifest.source.start_samples or manifest.source.length_samples is not None:
            return None
        path = Path(row.source_key) if row.from_watch_folder else row.job.source.path
        try:
            unchanged = path.is_file() and path.stat().st_mtime <= row.finished_unix_s
        except (OSError, ValueError):
            return None
        return path if unchanged else None

    def _files(self, folder: Path, manifest: Manifest | None) -> Iterator[tuple[str, Path]]:
        """What a manifest lists, and itself: each file's name in its folder, and where it lies."""
        if manifest is None:
            return
        names = [entry.file for entry in manifest.stems] + list(manifest.sessions or ())
        names += [entry.file for entry in manifest.others] + [manifest.analysis or "", FILE_NAME]
        for name in dict.fromkeys(filter(None, names)):
            path = inside(folder, name)
            if path is not None:
                yield name, path

    # A batch's

    def catalogues(self, store: JobStore | None) -> list[FoundCatalogue]:
        """Of every batch that this machine's queue knows."""
        found: dict[Path, FoundCatalogue] = {}
        for output in store.outputs("batch") if store else ():
            for folder in [output, *output.parents][:_LOOK_UP]:
                if folder not in found and (folder / JSON).is_file():
                    found[folder] = FoundCatalogue(self._access.file_id("", str(folder)), folder.name, folder)
                    break
        return sorted(found.values(), key=lambda one: one.name.lower())

    def catalogue_page(self, found: FoundCatalogue) -> str:
        """The page of a batch, its files by id. Raises: Refused: the catalogue cannot be read"""
        catalogue = self._read(found)
        beside = [name for name in (catalogue.session, CSV) if inside(found.folder, name)]

        def url(file: str) -> str | None:
            if inside(found.folder, file) is None:
                return None  # a folder, which is not listed here
            return f"/catalogues/{found.id}/files/{self._access.file_id(found.id, file)}"

        return linked_page(catalogue, found.folder, beside, url=url)

    def catalogue_file(self, found: FoundCatalogue, file_id: str) -> Path:
        """Raises: Refused: none of the batch's files has this id"""
        catalogue = self._read(found)
        names = [catalogue.session, CSV]
        for song in catalogue.songs:
            names += [file.file for file in song.files] + [*song.sessions, song.stem_mp4 or ""]
        for name in filter(None, names):
            if self._access.file_id(found.id, name) == file_id:
                path = inside(found.folder, name)
                if path is not None:
                    return path
        raise Refused(404, "This file is not there any more; load the page again.")

    def _read(self, found: FoundCatalogue) -> Catalogue:
        """Parsed once as long as the file is the same: a player asks for many parts."""
        path = found.folder / JSON
        try:
            status = path.stat()
            look = (status.st_size, status.st_mtime_ns)
            known = self._catalogues.get(path)
            if known is None or known[0] != look:
                known = self._catalogues[path] = look, Catalogue.from_json(path.read_bytes(), str(path))
            return known[1]
        except (OSError, JobFormatError) as error:
            raise Refused(404, f"The catalogue {found.name} cannot be read; run the batch again.") from error


def _kind(name: str, manifest: Manifest | None) -> str:
    """ "stem", "output", "source", "session", "loop" or "other": how the page groups what can be saved."""
    if manifest is None:
        return "other"
    kinds: dict[str, str] = {entry.file: entry.kind for entry in manifest.stems}
    kinds |= dict.fromkeys(manifest.sessions or (), "session")
    kinds |= {entry.file: "loop" if entry.kind == "loop" else "other" for entry in manifest.others}
    return kinds.get(name, "other")
