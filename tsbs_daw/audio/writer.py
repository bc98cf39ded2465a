"""What writers of sound files have in common: blocks in, no torso of a file left behind, read back at the end."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from pathlib import Path
from typing import TypeVar

import numpy as np

from tsbs_daw.core.errors import OutputError, shown

log = logging.getLogger(__name__)

Some = TypeVar("Some", bound="Writer")


class Writer(ABC):
    """A file being written. A context manager; a file whose writing failed is removed.

    sample_rate: of the file
    samples:     taken so far, at the rate of the blocks
    finished:    whether no more can come
    """

    sample_rate: int

    def __init__(self, path: Path | str, channels: int):
        self.path, self.channels, self.samples, self.finished = Path(path), channels, 0, False

    def write(self, block: np.ndarray) -> None:
        """Append.

        Args:   block: (channels, samples), float32, at the rate that the writer was opened with
        Raises: OutputError: NaN or infinity, another number of channels, too long for the format; NoSpaceLeft
        """
        if self.finished:
            raise OutputError(f"{shown(self.path)} is closed already.")
        if block.ndim != 2 or block.shape[0] != self.channels:
            self._discard()
            raise OutputError(f"{shown(self.path)} takes {self.channels} channels, not an array of {block.shape}.")
        if not np.isfinite(block).all():
            self._discard()
            raise OutputError(f"{shown(self.path)} was to receive NaN or infinity; nothing of it is kept.")
        if block.shape[1]:
            self._append(np.asarray(block, np.float32))
            self.samples += block.shape[1]

    def close(self) -> None:
        """Finish the file, make it durable, and read back its length. May be called again.

        Raises: NoSpaceLeft; OutputError: the file on disk does not hold what was written
        """
        if self.finished:
            return
        self._finish()
        self.finished = True
        try:
            found, due = self._found_samples(), self._due_samples()
            if found != due:
                raise OutputError(f"{shown(self.path)} holds {found} samples after {due} were written; check the disk.")
        except OutputError:
            if self.path.is_file():
                self.path.unlink()
            raise
        for warning in self.warnings:
            log.warning("%s", warning)

    def __enter__(self: Some) -> Some:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self.close()
        else:
            self._discard()

    @property
    @abstractmethod
    def clipped_samples(self) -> int:
        """How many lay beyond full scale, of a file that has one."""

    @property
    def warnings(self) -> tuple[str, ...]:
        """Sentences about what the format could not hold."""
        clipped = self.clipped_samples
        many = f"{clipped} samples" if clipped > 1 else "1 sample"
        said = f"{shown(self.path)} clips: {many} beyond full scale; lower the level, or deliver as wav32f."
        return (said,) if clipped else ()

    def _discard(self) -> None:
        """Close and remove the file, unless it is complete."""
        if not self.finished:
            self.finished = True
            self._remove()

    def _due_samples(self) -> int:
        """How many the file should have."""
        return self.samples

    @abstractmethod
    def _append(self, block: np.ndarray) -> None:
        """Encode (channels, samples), at least one sample; errors as of `write`."""

    @abstractmethod
    def _finish(self) -> None:
        """Complete the file and close it; errors as of `close`."""

    @abstractmethod
    def _found_samples(self) -> int:
        """How many the file on disk has. Raises: OutputError"""

    @abstractmethod
    def _remove(self) -> None:
        """Close and remove a torso."""
