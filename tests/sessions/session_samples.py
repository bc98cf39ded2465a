"""Sessions of every shape, and REAPER projects read back by a reader that knows nothing of the writer."""

from __future__ import annotations

import random
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from tsbs_daw.sessions.session import About, Marker, Session, SessionTrack, TempoChange

RATES = [8000, 11025, 22050, 44100, 48000, 88200, 96000, 192000]
HOSTILE = [
    "plain",
    "Дорога 🎧 さくら",
    "a<b>&\"c\"'d'",
    "two\nlines\x00\x1b",
    "half \udcff",
    "\ufffe",
    " spaced ",
    "#;|",
    "",
]
ENDINGS = ["wav", "flac", "aiff", "mp3"]


def random_session(rng: random.Random, *, tempo: bool | None = None) -> Session:
    """Any session that the program may write. tempo: whether it has one; None: perhaps"""
    rate = rng.choice(RATES)
    samples = rng.randrange(1, rate * 600)
    tracks = tuple(
        SessionTrack(
            name=rng.choice(["vocals", "drums", "bass", *HOSTILE]),
            file=f"{rng.choice(['', 'stems/', 'sub dir/ü/'])}{index}.{rng.choice(ENDINGS)}",
            color=f"#{rng.randrange(1 << 24):06x}",
            muted=rng.random() < 0.5,
            group=rng.choice(["", "drums", "music", "vocals", "another"]),
            folders=rng.choice([(), (), ("other",), ("vocals", "lead"), ("vocals",), ("two words",)]),
        )
        for index in range(rng.randrange(0, 9))
    )
    changes = sorted(rng.sample(range(samples + 1), min(samples, rng.choice([1, 1, 2, 6]))))
    with_tempo = rng.random() < 0.7 if tempo is None else tempo
    return Session(
        song=rng.choice(HOSTILE),
        sample_rate=rate,
        start_samples=rng.choice([0, 0, 1, rng.randrange(rate * 10), rng.randrange(rate * 86400)]),
        samples=samples,
        channels=rng.choice([1, 2, 2, 6]),
        tracks=tracks,
        tempo=tuple(_change(rng, at) for at in changes) if with_tempo else (),
        markers=tuple(
            Marker(at, rng.choice(HOSTILE))
            for at in sorted(rng.randrange(samples + 1) for _ in range(rng.randrange(5)))
        ),
        about=About(*(rng.choice(HOSTILE) for _ in range(8))),
    )


def in_order(session: Session) -> list[SessionTrack]:
    """The tracks as a reader meets them: each folder stands where the first track in it would."""
    tracks = [track for _, members in session.groups for track in members]
    first: dict[tuple[str, ...], int] = {}
    for index, track in enumerate(tracks):
        for depth in range(len(track.path)):
            first.setdefault(track.path[: depth + 1], index)

    def place(index: int) -> list[int]:
        path = tracks[index].path
        return [*(first[path[: depth + 1]] for depth in range(len(path))), index]

    return [tracks[index] for index in sorted(range(len(tracks)), key=place)]


def _change(rng: random.Random, at_samples: int) -> TempoChange:
    return TempoChange(at_samples, rng.choice([rng.uniform(40, 220), 128.0]), rng.choice([None, 2, 3, 4, 5, 7]))


def values(element: Any, key: str) -> list[str]:
    found = element.find(key)
    assert found is not None, f"{element.tag} has no {key}"
    return list(found[1:])


@dataclass
class ReadTrack:
    """A track and the names of the folders that it lies in, outermost first."""

    element: Any
    name: str
    folders: tuple[str, ...]
    is_folder: bool

    @property
    def items(self) -> list[Any]:
        return self.element.findall("ITEM")


def read_tracks(project: Any) -> list[ReadTrack]:
    """All tracks, with the folders that ISBUS makes of them. Asserts that every folder is closed once."""
    found: list[ReadTrack] = []
    folders: list[str] = []
    for element in project.findall("TRACK"):
        kind, depth = map(int, values(element, "ISBUS"))
        name = values(element, "NAME")[0]
        found.append(ReadTrack(element, name, tuple(folders), is_folder=depth == 1))
        assert (kind, depth) in [(1, 1), (0, 0)] or (kind == 2 and depth < 0)
        if depth == 1:
            folders.append(name)
        elif depth < 0:
            assert -depth <= len(folders), "more folders are closed than were opened"
            del folders[depth:]
    assert not folders, f"never closed: {folders}"
    return found


@dataclass
class Point:
    """A tempo point. bar: (beats, unit) where a bar begins; cut: the bar before it may be short."""

    at_s: float
    bpm: float
    bar: tuple[int, int] | None
    cut: bool


def read_points(project: Any) -> list[Point]:
    envelope = project.find("TEMPOENVEX")
    if envelope is None:
        return []
    found = []
    for _, at_s, bpm, shape, *bar in envelope.findall("PT"):
        assert shape == "1", "the tempo glides"
        assert not bar or (bar[1] == "0" and bar[2] in "15")
        signature = (int(bar[0]) & 0xFFFF, int(bar[0]) >> 16) if bar else None
        found.append(Point(float(at_s), float(bpm), signature, cut=bool(bar) and bar[2] == "5"))
    return found


def check_bars(points: list[Point]) -> None:
    """Every bar begins where the last one ends, but where it says that it cuts that one short."""
    assert points[0].at_s == 0 and points[0].bar
    into, (beats, unit) = 0.0, points[0].bar
    for last, point in pairwise(points):
        assert point.at_s > last.at_s
        length = beats * 4 / unit
        into += (point.at_s - last.at_s) * last.bpm / 60
        if point.bar:
            short = min(into % length, -into % length)
            assert point.cut == (short > 1e-3) or abs(short - 1e-3) < 1e-6, f"{short} quarters, {point}"
            into, (beats, unit) = 0.0, point.bar
