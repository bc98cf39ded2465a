"""How often one delivered stem is opened on its way through a batch: each opening may be a pass over many megabytes."""

from __future__ import annotations

import os
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import soundfile
from harness.studio import Studio

from tsbs_daw.audio.tags import Tags, read_tags, write_tags
from tsbs_daw.batch.waveform import waveforms

JPEG = b"\xff\xd8\xff\xe0" + bytes(200_000)


class Openings:
    """Counts who opens a file with `part` in its name: this process, its children, and C libraries by path."""

    def __init__(self) -> None:
        self.part: str | None = None
        self.written, self.read = Counter[str](), Counter[str]()
        sys.addaudithook(self._hear)  # for the life of the process; deaf without a part

    def _hear(self, event: str, arguments: tuple[Any, ...]) -> None:
        if self.part is None or event not in ("open", "subprocess.Popen"):
            return
        if event == "open":
            path, _, flags = arguments
            self.note(str(path), writes=bool(flags & (os.O_WRONLY | os.O_RDWR)))
        elif self.part in str(arguments[1]):  # a decoder, which opens the file once
            self.read["a child process"] += 1

    def note(self, path: str, *, writes: bool) -> None:
        if self.part and self.part in path and ".rendered" not in path:
            (self.written if writes else self.read)[Path(path).name] += 1


OPENINGS = Openings()


@pytest.fixture
def openings(monkeypatch: pytest.MonkeyPatch):
    plain = soundfile.SoundFile.__init__

    def heard(self: soundfile.SoundFile, file: Any, mode: str = "r", *rest: Any, **options: Any) -> None:
        if isinstance(file, (str, Path)):
            OPENINGS.note(str(file), writes=mode != "r")
        plain(self, file, mode, *rest, **options)

    monkeypatch.setattr(soundfile.SoundFile, "__init__", heard)
    OPENINGS.written.clear(), OPENINGS.read.clear()
    yield OPENINGS
    OPENINGS.part = None


@pytest.mark.parametrize("form", ["flac24", "flac16", "aiff24", "mp3"])
def test_a_delivered_stem_is_opened_twice_to_write_and_three_times_to_read(
    tmp_path: Path, openings: Openings, form: str
):
    studio = Studio(tmp_path)
    path = studio.song(duration_s=2.0)
    write_tags(path, Tags(title="Rain", cover=JPEG, cover_mime="image/jpeg"))
    delivery = {"format": form, "names": "{stem}", "sessions": ["rpp", "dawproject"]}
    openings.part = f"vocals.{form[:4].rstrip('12')}"
    result = studio.run(path, delivery=delivery)
    (vocals,) = (stem for stem in result.stems if stem.name == "vocals")
    drawn = waveforms(studio.out, result.folder.name, [vocals.path.relative_to(studio.out).as_posix()])
    assert all(picture.levels for picture in drawn.values())
    # Encoded, labelled, verified and hashed in one; then made durable with its folder.
    assert openings.written.total() <= 2, openings.written
    # Embedded in the DAWproject; its header, and its samples for the waveform.
    assert openings.read.total() <= 3, openings.read
    openings.part = None
    tags = read_tags(vocals.path)
    assert (tags.title, tags.cover) == ("Rain (vocals)", JPEG)


def test_labels_of_a_flac_move_no_sound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The encoder keeps room at the front, so that not even a large cover makes mutagen rewrite the file."""
    import mutagen._util

    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("the sound is moved")

    monkeypatch.setattr(mutagen._util, "insert_bytes", refuse)
    studio = Studio(tmp_path)
    path = studio.song(duration_s=2.0)
    write_tags(path, Tags(title="Rain", comment="c" * 3000, cover=JPEG, cover_mime="image/jpeg"))
    result = studio.run(path, delivery={"format": "flac24", "names": "{stem}"})
    assert not result.warnings
    assert {read_tags(stem.path).cover for stem in result.stems} == {JPEG}
