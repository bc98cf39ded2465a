"""What a file's own bytes say about it (first version: WAV only)."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Header:
    container: str
    samples: int | None = None
    samples_known: bool = True
    seekable: bool = True
    time_reference_samples: int = 0
    warnings: tuple[str, ...] = ()


def inspect(path: Path, *, salvage: bool = False) -> Header:
    with path.open("rb") as file:
        kind = file.read(12)
        if kind[8:] != b"WAVE":
            return Header(path.suffix[1:].upper())
        size, reference, block, ds64 = 0, 0, 1, 0
        while len(head := file.read(8)) == 8:
            name, size = struct.unpack("<4sI", head)
            if name == b"data":
                break
            body = file.read(size + size % 2)
            if name == b"bext":
                reference = struct.unpack_from("<Q", body, 338)[0]
            if name == b"fmt ":
                block = struct.unpack_from("<H", body, 12)[0]
            if name == b"ds64":
                ds64 = struct.unpack_from("<Q", body, 8)[0]
        if kind[:4] == b"RF64":
            size = ds64
    return Header("WAV", samples=size // max(block, 1), time_reference_samples=reference)
