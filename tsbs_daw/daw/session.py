"""What a DAW session of one song holds, in no DAW's own terms. The writers beside this file turn it into projects."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import PurePosixPath

_COLOR = re.compile(r"#[0-9a-fA-F]{6}")


@dataclass(frozen=True)
class SessionTrack:
    """One track with one item on it.

    name:  what the track is called
    file:  the audio, relative to the folder that the session file is in, with forward slashes
    color: #rrggbb
    muted: a dry stem beside its processed version
    """

    name: str
    file: str
    color: str
    muted: bool = False

    def __post_init__(self) -> None:
        path = PurePosixPath(self.file)
        assert self.file and not path.is_absolute() and ".." not in path.parts, f"not inside the session: {self.file}"
        assert _COLOR.fullmatch(self.color), f"not a colour: {self.color}"


@dataclass(frozen=True)
class Session:
    """A song's tracks, in order, all starting together and equally long.

    song:          the name of the folder track and of the region
    sample_rate:   Hz, of the project and of every file
    start_samples: where the audio sits on the timeline; the source's time reference
    samples:       the length of every file
    channels:      of every file
    """

    song: str
    sample_rate: int
    start_samples: int
    samples: int
    channels: int
    tracks: tuple[SessionTrack, ...]

    @property
    def start_s(self) -> float:
        return self.start_samples / self.sample_rate

    @property
    def length_s(self) -> float:
        return self.samples / self.sample_rate

    @property
    def end_s(self) -> float:
        return (self.start_samples + self.samples) / self.sample_rate
