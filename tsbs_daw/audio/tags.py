"""Tags and covers: read from any source format, written to any delivery format.

| written to | as |
|---|---|
| WAV | ID3v2.3 in an `id3 ` chunk (Traktor, Serato, Rekordbox, REAPER), LIST INFO (Windows, editors) |
| AIFF | ID3v2.3 in an `ID3 ` chunk |
| MP3 | ID3v2.3 |
| FLAC | Vorbis comments (BPM, INITIALKEY), a picture block |
| MP4 | iTunes atoms (tmpo, initialkey), covr |

Every player and DJ program reads ID3v2.3 with UTF-16. The audio and the `bext` and `acid` chunks are left unchanged.
DAWs stretch audio by `acid`, which is wrong for a song whose tempo varies, so the writer of the audio decides whether
to add that chunk.
"""

from __future__ import annotations

import base64
import binascii
import logging
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, BinaryIO

from tsbs_daw.audio.headers.common import Refused, Section, riff_chunks
from tsbs_daw.audio.probe import audio_start, inspect
from tsbs_daw.audio.riff import append_chunks, build_chunk, list_type
from tsbs_daw.core import child
from tsbs_daw.core.errors import AudioError, OutputError, TsbsDawError, shown
from tsbs_daw.core.files import open_regular, sync_file, write_error

log = logging.getLogger(__name__)

READ_S = 20.0
READ_MEMORY_BYTES = 512 << 20
FRONT_COVER = 3
LABEL_ROOM_BYTES = 4096
ROOM_COMMENT = "comment"  # filled with spaces, it reserves room in a FLAC, so that labels need not move the audio
ID3_FRAMES = {
    "artist": "TPE1",
    "title": "TIT2",
    "album": "TALB",
    "date": "TDRC",
    "genre": "TCON",
    "track_number": "TRCK",
}
VORBIS_NAMES = {"track_number": "tracknumber"}  # the other names equal the field names
MP4_ATOMS = {
    "artist": "\xa9ART", "title": "\xa9nam", "album": "\xa9alb", "date": "\xa9day", "genre": "\xa9gen",
    "comment": "\xa9cmt",
}  # fmt: skip
INFO_NAMES = {
    "artist": b"IART", "title": b"INAM", "album": b"IPRD", "date": b"ICRD", "genre": b"IGNR",
    "track_number": b"ITRK", "comment": b"ICMT",
}  # fmt: skip


@dataclass(frozen=True)
class Tags:
    """The tags of a song; "" for a missing tag.

    Attributes:
        track_number: "3" or "3/12".
        cover: Bytes of a JPEG or PNG file; None if there is no cover.
        cover_mime: "image/jpeg" or "image/png"; "" if there is no cover.
    """

    artist: str = ""
    title: str = ""
    album: str = ""
    date: str = ""
    genre: str = ""
    track_number: str = ""
    comment: str = ""
    cover: bytes | None = None
    cover_mime: str = ""

    def texts(self) -> dict[str, str]:
        """The text fields that are not empty."""
        texts = {field.name: getattr(self, field.name) for field in fields(self)[:7]}
        return {name: text for name, text in texts.items() if text}


def read_tags(path: Path | str) -> Tags:
    """Read the tags of a file in any container. Tags that are missing or unreadable are empty; no error is raised.

    Text whose stated encoding is wrong is repaired where this is unambiguous; see `repaired`.
    """
    try:
        with open_regular(Path(path)) as file:
            places = _riff_places(file)
        request = {"path": str(Path(path).absolute()), "memory_bytes": READ_MEMORY_BYTES, "places": places}
        document = child.ask(child.python("tsbs_daw.audio.tag_child"), request, limit_s=READ_S)
        cover = base64.b64decode(document.pop("cover", ""), validate=True)
        texts: dict[str, Any] = {name: repaired(text) for name, text in document.items()}
    except (OSError, Refused, child.ChildError, ValueError, binascii.Error) as error:
        log.info("cannot read the tags of %s: %s", shown(path), error)
        return Tags()
    tags = Tags(**texts)
    mime = _picture_mime(cover)
    return replace(tags, cover=cover, cover_mime=mime) if mime else tags


def _riff_places(file: BinaryIO) -> list[tuple[str, int, int]] | None:
    """Locate the tags of a WAV or AIFF, each as ("INFO" or "id3", offset, bytes); None for other formats."""
    size = file.seek(0, 2)
    _, start = audio_start(file, size)
    file.seek(start)
    head, whole = file.read(12), Section(file, start, size)
    is_aiff = head[:4] == b"FORM" and head[8:] in (b"AIFF", b"AIFC")
    if not is_aiff and (head[:4] not in (b"RIFF", b"RIFX", b"RF64", b"BW64") or head[8:] != b"WAVE"):
        return None
    places = [("id3", 0, start)] if start else []
    for chunk in riff_chunks(whole, whole.size, ">" if is_aiff or head[:4] == b"RIFX" else "<"):
        if list_type(whole, chunk) == b"INFO":
            places.append(("INFO", start + chunk.body + 4, chunk.size - 4))
        elif chunk.name.lower() == b"id3 ":
            places.append(("id3", start + chunk.body, chunk.size))
    return places


def repaired(text: str) -> str:
    """Repair wrongly decoded text, and turn it into one line without control characters.

    Two mistakes can be detected reliably: UTF-8 decoded as Latin-1 ("BeyoncÃ©"), which resembles no language, and
    Windows-1252 decoded as Latin-1, which turns quotation marks into control characters. A Cyrillic or Japanese code
    page decoded as Latin-1 cannot be distinguished from Latin-1 and is left unchanged.
    """
    try:
        text = b"".join(_byte_of(char) for char in text).decode("utf-8")
    except UnicodeError:
        text = "".join(_windows(char) for char in text)
    text = text.encode("utf-8", "replace").decode("utf-8")
    return " ".join("".join(char if char.isprintable() else " " for char in text).split())


def _byte_of(char: str) -> bytes:
    return bytes([ord(char)]) if ord(char) < 256 else char.encode("cp1252")


def _windows(char: str) -> str:
    return bytes([ord(char)]).decode("cp1252", "replace") if "\x80" <= char <= "\x9f" else char


def _picture_mime(data: bytes) -> str:
    if data.startswith(b"\xff\xd8\xff"):
        return "image/jpeg"
    return "image/png" if data.startswith(b"\x89PNG\r\n\x1a\n") else ""


@dataclass(frozen=True)
class Labels:
    """The metadata that is written to a delivered file.

    Attributes:
        tags: Tags of the song. Empty fields are not written.
        bpm: Tempo, rounded to hundredths (MP4: to an integer).
        key: "A minor" or "Am", both written as "Am"; other text, such as a Camelot code, is written unchanged.
        session: Vorbis comments that state the position in the session (FLAC only).
    """

    tags: Tags = field(default_factory=Tags)
    bpm: float | None = None
    key: str | None = None
    session: Mapping[str, str] = field(default_factory=dict)

    @property
    def tempo_text(self) -> str:
        return f"{self.bpm:.2f}".rstrip("0").rstrip(".") if self.bpm else ""

    @property
    def key_text(self) -> str:
        return short_key(self.key or "")

    def __bool__(self) -> bool:
        return bool(self.tags.texts() or self.tags.cover or self.tempo_text or self.key_text or self.session)

    @property
    def size_bytes(self) -> int:
        """Estimate of the labels' size in a file, on the high side."""
        texts = [*self.tags.texts().values(), *self.session.values()]
        return LABEL_ROOM_BYTES + sum(len(text.encode("utf-8")) for text in texts) + len(self.tags.cover or b"")


def write_tags(path: Path | str, tags: Tags, *, bpm: float | None = None, key: str | None = None) -> None:
    """Write tags, a tempo and a key to a complete file, and keep its other tags.

    Args:
        path: File to change.
        tags: Tags of the song; see `Labels`.
        bpm: Tempo; see `Labels`.
        key: Key; see `Labels`.

    Raises:
        OutputError: The file cannot hold tags; it is left unchanged.
        NoSpaceLeft: The disk is full; the file is left unchanged.
    """
    path, labels = Path(path), Labels(tags, bpm, key)
    if not labels:
        return
    try:
        container = inspect(path).container
    except AudioError as error:
        raise OutputError(f"Cannot write tags: {error}") from error
    if container in ("WAV", "RF64"):
        with _labelling(path):
            _write_wav(path, labels)
    elif container in _LABELLERS:
        _on_a_copy(path, container, labels)
    else:
        raise OutputError(f"{shown(path)} is {container}, which cannot hold tags.")


def label(file: BinaryIO, path: Path, container: str, labels: Labels) -> None:
    """Write labels into an open file, and keep its other tags.

    Args:
        file: File, open for reading and writing. The caller has to sync it to disk.
        path: Path of the file, for error messages.
        container: FLAC, AIFF, MP3 or MP4.
        labels: Labels to write.

    Raises:
        OutputError: The file cannot hold the labels; it is left unchanged.
        OSError: Reading or writing failed; the file may be damaged.
    """
    with _labelling(path, disk=False):
        file.seek(0)
        _LABELLERS[container](file, labels)


@contextmanager
def _labelling(path: Path, *, disk: bool = True) -> Iterator[None]:
    """Translate mutagen's exceptions. There are many types, and some wrap an OSError.

    Args:
        path: Path of the file, for the error message.
        disk: Whether to translate an OSError too; otherwise it is raised unwrapped.

    Raises:
        OutputError: The file cannot hold the labels, or with `disk` cannot be written.
        OSError: Reading or writing failed, without `disk`.
    """
    try:
        yield
    except (TsbsDawError, KeyboardInterrupt):
        raise
    except Exception as error:
        cause = next((e for e in (error, error.__cause__, error.__context__) if isinstance(e, OSError)), None)
        if cause:
            raise write_error(path, cause) if disk else cause from error
        raise OutputError(f"Cannot write tags to {shown(path)} ({type(error).__name__}: {error}).") from error


def short_key(key: str) -> str:
    """The short form of a key: "Am" for "A minor", "Bb" for "Bb major"; other text is unchanged."""
    tonic, _, mode = key.partition(" ")
    return tonic + {"minor": "m", "major": ""}[mode] if mode in ("minor", "major") else key


def _on_a_copy(path: Path, container: str, labels: Labels) -> None:
    """Label a copy and replace the file with it, so that no other process sees a partially written file."""
    copy = path.with_name(f".{path.name}.tagging")
    try:
        with _labelling(path):
            shutil.copyfile(path, copy)
            with copy.open("rb+") as file:
                label(file, path, container, labels)
                file.flush()
                sync_file(file.fileno())
            copy.replace(path)
    finally:
        copy.unlink(missing_ok=True)


def _fill_id3(frames: Any, labels: Labels) -> None:
    """Set the ID3v2.3 frames."""
    from mutagen import id3

    tags, texts = labels.tags, labels.tags.texts()
    for name, frame in ID3_FRAMES.items():
        if name in texts:
            frames.setall(frame, [getattr(id3, frame)(encoding=1, text=texts[name])])
    if "comment" in texts:
        frames.setall("COMM", [id3.COMM(encoding=1, lang="eng", desc="", text=texts["comment"])])
    if labels.tempo_text:
        frames.setall("TBPM", [id3.TBPM(encoding=0, text=labels.tempo_text)])
    if labels.key_text:
        frames.setall("TKEY", [id3.TKEY(encoding=1, text=labels.key_text)])
    if tags.cover:
        picture = id3.APIC(encoding=0, mime=tags.cover_mime, type=FRONT_COVER, desc="", data=tags.cover)
        frames.setall("APIC", [picture])
    frames.update_to_v23()


def _write_wav(path: Path, labels: Labels) -> None:
    import io

    from mutagen.id3 import ID3

    frames, body = ID3(), io.BytesIO()
    _fill_id3(frames, labels)
    frames.save(body, v1=0, v2_version=3, padding=lambda info: 0)
    texts = {INFO_NAMES[name]: text for name, text in labels.tags.texts().items()}
    info = b"".join(build_chunk(name, text.encode("utf-8") + b"\0") for name, text in texts.items())
    chunks = {b"id3 ": body.getvalue()} | ({b"LIST": b"INFO" + info} if info else {})
    append_chunks(path, chunks, instead_of=(b"id3 ", b"ID3 ", b"INFO"))


def _label_aiff(file: BinaryIO, labels: Labels) -> None:
    from mutagen.aiff import AIFF

    _label_id3(AIFF(file), file, labels)


def _label_mp3(file: BinaryIO, labels: Labels) -> None:
    from mutagen.mp3 import MP3

    _label_id3(MP3(file), file, labels)


def _label_id3(found: Any, file: BinaryIO, labels: Labels) -> None:
    if found.tags is None:
        found.add_tags()
    _fill_id3(found.tags, labels)
    file.seek(0)
    found.save(file, v2_version=3)


def _label_flac(file: BinaryIO, labels: Labels) -> None:
    from mutagen.flac import FLAC, Picture

    found, tags = FLAC(file), labels.tags
    if found.tags is not None and not "".join(found.tags.get(ROOM_COMMENT, "x")).strip():
        del found.tags[ROOM_COMMENT]
    for name, text in labels.session.items():
        found[name] = text
    for name, text in (tags.texts() | {"bpm": labels.tempo_text, "initialkey": labels.key_text}).items():
        if text:
            found[VORBIS_NAMES.get(name, name)] = text
    if tags.cover:
        picture = Picture()
        picture.type, picture.mime, picture.data = FRONT_COVER, tags.cover_mime, tags.cover
        found.clear_pictures()
        found.add_picture(picture)
    file.seek(0)
    found.save(file)


def _label_mp4(file: BinaryIO, labels: Labels) -> None:
    from mutagen.mp4 import MP4, MP4Cover, MP4FreeForm

    found: Any = MP4(file)  # mutagen has no type annotations for it
    tags = labels.tags
    if found.tags is None:
        found.add_tags()
    for name, text in tags.texts().items():
        if name in MP4_ATOMS:
            found.tags[MP4_ATOMS[name]] = [text]
    if numbers := _track_numbers(tags.track_number):
        found.tags["trkn"] = [numbers]
    if labels.tempo_text:
        found.tags["tmpo"] = [round(float(labels.tempo_text))]
    if labels.key_text:
        found.tags["----:com.apple.iTunes:initialkey"] = [MP4FreeForm(labels.key_text.encode("utf-8"))]
    if tags.cover:
        kind = MP4Cover.FORMAT_PNG if tags.cover_mime == "image/png" else MP4Cover.FORMAT_JPEG
        found.tags["covr"] = [MP4Cover(tags.cover, imageformat=kind)]
    file.seek(0)
    found.save(file)


_LABELLERS: dict[str, Callable[[BinaryIO, Labels], None]] = {
    "FLAC": _label_flac,
    "AIFF": _label_aiff,
    "MP3": _label_mp3,
    "MP4": _label_mp4,
}


def _track_numbers(text: str) -> tuple[int, int] | None:
    """Return the track number and the number of tracks (0: unknown) of "3/12"; None if it is no number, as on vinyl."""
    track, _, total = (part.strip() for part in text.partition("/"))
    if not track.isdecimal() or int(track) >= 1 << 16:
        return None
    return int(track), int(total) if total.isdecimal() and int(total) < 1 << 16 else 0
