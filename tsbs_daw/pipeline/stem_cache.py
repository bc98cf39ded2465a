"""Separated stems by content, so that another preset, or `--residual`, re-runs the effects only.

    <cache>/stems/<key>/drums.wav bass.wav ... residual.wav separation.json

The key is a hash of everything that decides the stems. A folder appears by one rename, complete; the ones used
longest ago are removed when all together exceed the limit.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile

from tsbs_daw.audio.read import AudioReader
from tsbs_daw.audio.wav_writer import AudioWriter, file_samples
from tsbs_daw.audio.writer import write_error
from tsbs_daw.contracts.document import Document
from tsbs_daw.core.errors import JobFormatError, OutputError, OutputUnavailable, shown
from tsbs_daw.core.files import write_atomically
from tsbs_daw.core.locks import HeldElsewhere, LockFile
from tsbs_daw.separation.residual import share_residual

log = logging.getLogger(__name__)

LIMIT_BYTES = 20 * 1024**3
BLOCK_SAMPLES = 65536
RESIDUAL = "residual"
_FILE = "separation.json"
_LOCK = ".lock"  # of a folder that is being written
_IN_USE_S = 3600.0  # a folder touched this recently may be being read


class Separation(Document):
    """What was separated, and how well the stems sum to it.

    time_reference_samples: of the source file, wherever the portion starts
    mixture_rms:            of the portion, linear
    """

    stems: tuple[str, ...]
    container: str
    subtype: str
    sample_rate: int
    channels: int
    samples: int
    time_reference_samples: int
    mixture_rms: float
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class CachedStems:
    """A complete folder of the cache."""

    folder: Path
    about: Separation

    def blocks(self, *, share: bool = False) -> Iterator[tuple[dict[str, np.ndarray], np.ndarray]]:
        """The stems and what of the mixture they leave out, (channels, n) each, block by block.

        Args: share: give the residual back to the stems; what is left out is then rounding alone
        """
        blocks = self._blocks()
        for stems, residual in share_residual(blocks, self.about.sample_rate) if share else blocks:
            yield dict(zip(self.about.stems, stems, strict=True)), residual

    def _blocks(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """(stems, channels, n) and the residual (channels, n), as they were written."""
        with self.opened((*self.about.stems, RESIDUAL)) as read:
            while (parts := read(BLOCK_SAMPLES)).shape[-1]:
                yield parts[:-1], parts[-1]

    @contextmanager
    def opened(self, names: tuple[str, ...]) -> Iterator[Callable[[int], np.ndarray]]:
        """Open some of the files, and give what reads the next samples of each: (names, channels, n), n = 0 at the end.

        Raises: OutputUnavailable: they are not there any more
        """
        with ExitStack() as files:
            try:
                opened = [files.enter_context(soundfile.SoundFile(self.folder / f"{name}.wav")) for name in names]
            except soundfile.SoundFileError as error:
                raise OutputUnavailable(
                    f"The cached stems in {shown(self.folder)} were removed before they were read; try again."
                ) from error
            yield lambda samples: np.stack([file.read(samples, dtype="float32", always_2d=True).T for file in opened])


class StemCache:
    """The cache below one folder. Safe for several processes: folders only ever appear whole."""

    def __init__(self, folder: Path, limit_bytes: int = LIMIT_BYTES):
        self.folder, self.limit_bytes = folder / "stems", limit_bytes

    def find(self, key: str) -> CachedStems | None:
        """The stems of `key`, if they are complete; a damaged folder is removed."""
        folder = self.folder / key
        try:
            about = Separation.from_json((folder / _FILE).read_bytes(), str(folder / _FILE))
            complete = all(file_samples(folder / f"{name}.wav") == about.samples for name in (*about.stems, RESIDUAL))
        except FileNotFoundError:
            return None
        except (JobFormatError, OutputError, OSError) as error:
            log.warning("the cached stems in %s are unusable: %s", folder, error)
            complete = False
        if not complete:
            shutil.rmtree(folder, ignore_errors=True)
            return None
        with suppress(OSError):
            os.utime(folder)
        return CachedStems(folder, about)

    @contextmanager
    def writing(self, key: str, stems: tuple[str, ...], source: AudioReader) -> Iterator[StemWriter]:
        """A writer whose folder becomes `key` when the block ends well, and vanishes when it does not."""
        self.remove_abandoned()
        temporary, lock = self._begin()
        try:
            with StemWriter(temporary, stems, source) as writer:
                yield writer
            try:
                write_atomically(temporary / _FILE, writer.about().to_json())
                _let_go(lock)
                temporary.rename(self.folder / key)
            except OSError as error:
                if not self.find(key):  # else another process was faster, and ours is not needed
                    raise write_error(self.folder / key, error) from error
        finally:
            lock.release()
            shutil.rmtree(temporary, ignore_errors=True)
        self.prune(keep=key)

    def _begin(self) -> tuple[Path, LockFile]:
        """A new folder and its lock, held. Raises: OutputError: see `write_error`"""
        while True:
            temporary = self.folder / f".tmp-{uuid.uuid4().hex}"
            try:
                temporary.mkdir(parents=True)
            except OSError as error:
                raise write_error(temporary, error) from error
            lock = LockFile(temporary / _LOCK)
            try:
                lock.acquire()
            except (HeldElsewhere, FileNotFoundError):  # another run saw it before it was locked, and removes it
                continue
            except OSError:  # a file system that knows no locks: the folder's age must do
                pass
            return temporary, lock

    def remove_abandoned(self) -> None:
        """Remove what runs that were killed had begun to write; whoever still writes holds the lock of its folder."""
        for lock_path in self.folder.glob(f".tmp-*/{_LOCK}"):
            lock = LockFile(lock_path)
            try:
                lock.acquire()
            except (HeldElsewhere, OSError):
                continue
            # While it is held, so that whoever has just made the folder notices.
            shutil.rmtree(lock_path.parent, ignore_errors=True)
            lock.release()
            shutil.rmtree(lock_path.parent, ignore_errors=True)  # where a file that is open stays
            log.info("removed %s, left behind by a run that was killed", lock_path.parent)

    def prune(self, keep: str = "") -> None:
        """Remove what was used longest ago, until the limit is kept. Never what may be in use."""
        found = []
        for folder in self.folder.iterdir() if self.folder.is_dir() else ():
            with suppress(OSError):
                age = time.time() - folder.stat().st_mtime
                found.append((age, sum(file.stat().st_size for file in folder.iterdir()), folder))
        total = sum(size for _, size, _ in found)
        for age, size, folder in sorted(found, reverse=True):
            abandoned = folder.name.startswith(".tmp-") and age > 24 * _IN_USE_S
            if (total > self.limit_bytes and age > _IN_USE_S and folder.name != keep) or abandoned:
                shutil.rmtree(folder, ignore_errors=True)
                log.info("removed cached stems %s", folder.name)
                total -= size


def _let_go(lock: LockFile) -> None:
    """The folder is complete: take the lock out of it, before others can find it unlocked where the system allows."""
    with suppress(OSError):
        lock.path.unlink()
    lock.release()
    with suppress(OSError):
        lock.path.unlink(missing_ok=True)


class StemWriter:
    """Writes the stems and the residual of one mixture, in step with it."""

    def __init__(self, folder: Path, stems: tuple[str, ...], source: AudioReader):
        if any(Path(name).name != name or "\\" in name or name == RESIDUAL for name in stems):
            raise OutputError(f"A model's stems cannot be named {', '.join(map(repr, stems))}; use plain names.")
        self.stems, self.source = stems, source
        self._energy = 0.0
        self._files = ExitStack()
        with self._files:  # a writer that cannot be opened closes those before it
            self._writers = [
                self._files.enter_context(
                    AudioWriter(folder / f"{name}.wav", source.info.sample_rate, source.info.channels)
                )
                for name in (*stems, RESIDUAL)
            ]
            self._files = self._files.pop_all()

    def __enter__(self) -> StemWriter:
        return self

    def __exit__(self, *failure: object) -> None:
        self._files.__exit__(*failure)

    def write(self, stems: np.ndarray, mixture: np.ndarray) -> None:
        """stems: (stems, channels, n); mixture: (channels, n)."""
        *writers, residual = self._writers
        for writer, stem in zip(writers, stems, strict=True):
            writer.write(stem)
        residual.write((mixture - stems.sum(0, dtype=np.float64)).astype(np.float32))
        self._energy += float(np.square(mixture, dtype=np.float64).sum())

    def about(self) -> Separation:
        """What was written. The source is asked now: reading may have found something to warn of."""
        info, samples = self.source.info, self._writers[0].samples
        return Separation(
            schema=1,
            stems=self.stems,
            container=info.container,
            subtype=info.subtype,
            sample_rate=info.sample_rate,
            channels=info.channels,
            samples=samples,
            time_reference_samples=info.time_reference_samples,
            mixture_rms=float(np.sqrt(self._energy / max(1, samples * info.channels))),
            warnings=info.warnings,
        )


def cache_key(**decisive: object) -> str:
    """A folder's name from everything that decides its content."""
    return hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()[:40]
