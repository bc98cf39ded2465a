"""Cache of separated stems by content, so that another preset or `--residual` only re-runs the effects.

    <cache>/stems/<key>/drums.wav bass.wav ... residual.wav separation.json

The key is a hash of everything that determines the stems. A folder appears complete, by one rename. If the cache
exceeds its size limit, the least recently used folders are removed.
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
from types import TracebackType
from typing import Protocol

import numpy as np
import soundfile

from tsbs_daw.audio.read import AudioInfo
from tsbs_daw.audio.writer import AudioWriter, file_samples
from tsbs_daw.contracts import Document
from tsbs_daw.core.errors import JobFormatError, OutputError, OutputUnavailable, shown
from tsbs_daw.core.files import write_atomically, write_error
from tsbs_daw.core.locks import HeldElsewhere, LockFile
from tsbs_daw.separation.streams import share_residual

log = logging.getLogger(__name__)

LIMIT_BYTES = 20 * 1024**3
BLOCK_SAMPLES = 65536
RESIDUAL = "residual"
_FILE = "separation.json"
_LOCK = ".lock"  # held while a folder is being written
_IN_USE_S = 3600.0  # a folder touched within this time may still be being read


class StemSource(Protocol):
    """The audio that stems are separated from: an `AudioReader`, or a stem for a pass."""

    @property
    def info(self) -> AudioInfo: ...


class Separation(Document):
    """Description of cached stems and of the audio that they were separated from.

    Attributes:
        time_reference_samples: Of the source file, even if only a portion of it was separated.
        mixture_rms: RMS of the separated portion, linear.
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
        """Yield (stems by name, residual) block by block, (channels, n) each.

        Args:
            share: Distribute the residual among the stems, so that only rounding errors are left.
        """
        blocks = self._blocks()
        for stems, residual in share_residual(blocks, self.about.sample_rate) if share else blocks:
            yield dict(zip(self.about.stems, stems, strict=True)), residual

    def _blocks(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield the stems, (stems, channels, n), and the residual, (channels, n), as they were written."""
        with self.opened((*self.about.stems, RESIDUAL)) as read:
            while (parts := read(BLOCK_SAMPLES)).shape[-1]:
                yield parts[:-1], parts[-1]

    @contextmanager
    def opened(self, names: tuple[str, ...]) -> Iterator[Callable[[int], np.ndarray]]:
        """Open some of the files.

        Yields:
            A function that reads the next samples of each file: (names, channels, n), with n = 0 at the end.

        Raises:
            OutputUnavailable: The files no longer exist.
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
    """The cache in one folder. Several processes may share it, because a folder only appears once it is complete."""

    def __init__(self, folder: Path, limit_bytes: int = LIMIT_BYTES):
        self.folder, self.limit_bytes = folder / "stems", limit_bytes

    def find(self, key: str) -> CachedStems | None:
        """Return the stems of `key` if they are complete; a damaged folder is removed."""
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
    def writing(self, key: str, stems: tuple[str, ...], source: StemSource) -> Iterator[StemWriter]:
        """Open a writer whose folder becomes `key` if the block succeeds, and is removed if it raises."""
        self.remove_abandoned()
        temporary, lock = self._begin()
        try:
            with StemWriter(temporary, stems, source) as writer:
                yield writer
            try:
                write_atomically(temporary / _FILE, writer.about().to_json())
                _remove_lock(lock)
                temporary.rename(self.folder / key)
            except OSError as error:
                if not self.find(key):  # if it is there, another process was faster, and ours is not needed
                    raise write_error(self.folder / key, error) from error
        finally:
            lock.release()
            shutil.rmtree(temporary, ignore_errors=True)
        self.prune(keep=key)

    def _begin(self) -> tuple[Path, LockFile]:
        """Create a temporary folder and acquire its lock.

        Raises:
            OutputError: See `write_error`.
        """
        while True:
            temporary = self.folder / f".tmp-{uuid.uuid4().hex}"
            try:
                temporary.mkdir(parents=True)
            except OSError as error:
                raise write_error(temporary, error) from error
            lock = LockFile(temporary / _LOCK)
            try:
                lock.acquire()
            except (HeldElsewhere, FileNotFoundError):  # another run found the folder before it was locked
                continue
            except OSError:  # on a file system without locks, `prune` uses the age of the folder
                pass
            return temporary, lock

    def remove_abandoned(self) -> None:
        """Remove temporary folders of killed runs. A run that is still writing holds the lock of its folder."""
        for lock_path in self.folder.glob(f".tmp-*/{_LOCK}"):
            lock = LockFile(lock_path)
            try:
                lock.acquire()
            except (HeldElsewhere, OSError):
                continue
            # Remove it while holding the lock, so that a run that has just created the folder notices.
            shutil.rmtree(lock_path.parent, ignore_errors=True)
            lock.release()
            shutil.rmtree(lock_path.parent, ignore_errors=True)  # again for systems that cannot remove an open file
            log.info("removed %s, which a killed run left behind", lock_path.parent)

    def prune(self, keep: str = "") -> None:
        """Remove the least recently used folders until the limit is met. Folders that may be in use stay."""
        entries = []
        for folder in self.folder.iterdir() if self.folder.is_dir() else ():
            with suppress(OSError):
                age = time.time() - folder.stat().st_mtime
                entries.append((age, sum(file.stat().st_size for file in folder.iterdir()), folder))
        total = sum(size for _, size, _ in entries)
        for age, size, folder in sorted(entries, reverse=True):
            abandoned = folder.name.startswith(".tmp-") and age > 24 * _IN_USE_S
            if (total > self.limit_bytes and age > _IN_USE_S and folder.name != keep) or abandoned:
                shutil.rmtree(folder, ignore_errors=True)
                log.info("removed cached stems %s", folder.name)
                total -= size


def _remove_lock(lock: LockFile) -> None:
    """Remove and release the lock of a complete folder, in this order if the system can remove an open file."""
    with suppress(OSError):
        lock.path.unlink()
    lock.release()
    with suppress(OSError):
        lock.path.unlink(missing_ok=True)


class StemWriter:
    """Writes the stems and the residual of one mixture, block by block."""

    def __init__(self, folder: Path, stems: tuple[str, ...], source: StemSource):
        if any(Path(name).name != name or "\\" in name or name == RESIDUAL for name in stems):
            raise OutputError(f"A model's stems cannot be named {', '.join(map(repr, stems))}; use plain names.")
        self.stems, self.source = stems, source
        self._energy = 0.0
        self._files = ExitStack()
        with self._files:  # if a writer cannot be opened, close the previous ones
            self._writers = [
                self._files.enter_context(
                    AudioWriter(folder / f"{name}.wav", source.info.sample_rate, source.info.channels)
                )
                for name in (*stems, RESIDUAL)
            ]
            self._files = self._files.pop_all()

    def __enter__(self) -> StemWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._files.__exit__(kind, error, trace)

    def write(self, stems: np.ndarray, mixture: np.ndarray) -> None:
        """Write a block.

        Shape:
            stems: (stems, channels, n)
            mixture: (channels, n)
        """
        *writers, residual = self._writers
        for writer, stem in zip(writers, stems, strict=True):
            writer.write(stem)
        residual.write((mixture - stems.sum(0, dtype=np.float64)).astype(np.float32))
        self._energy += float(np.square(mixture, dtype=np.float64).sum())

    def about(self) -> Separation:
        """Describe what was written. Call it at the end, because reading the source may add warnings."""
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
    """Return a cache key from everything that determines the content."""
    return hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()[:40]
