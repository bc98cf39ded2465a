"""Tags and covers: read from any source format, written to any delivery format.

| written to | as |
|---|---|
| WAV | ID3v2.3 in an `id3 ` chunk (Traktor, Serato, Rekordbox, REAPER), LIST INFO (Windows, editors) |
| AIFF | ID3v2.3 in an `ID3 ` chunk |
| MP3 | ID3v2.3 |
| FLAC | Vorbis comments (BPM, INITIALKEY), a picture block |
| MP4 | iTunes atoms (tmpo, initialkey), covr |

Every player and DJ program reads ID3v2.3 with UTF-16. The audio, `bext` and `acid` are left alone: DAWs stretch by
`acid`, and a song can have a tempo and still change it, so the writer of the audio decides about that chunk.
"""

from __future__ import annotations

import base64
import binascii
import json
import logging
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import BinaryIO

from tsbs_daw.audio.headers.common import Refused, Section, riff_chunks
from tsbs_daw.audio.headers.probe import audio_start, inspect
from tsbs_daw.audio.riff import append_chunks, build_chunk, list_type
from tsbs_daw.audio.writer import write_error
from tsbs_daw.core.errors import AudioError, OutputError, TsbsDawError, shown
from tsbs_daw.core.files import open_regular, sync_file

log = logging.getLogger(__name__)

READ_S = 20.0
READ_MEMORY_BYTES = 512 << 20
FRONT_COVER = 3
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
        track_number: "3" or "3/12"
        cover: the bytes of a JPEG or PNG file
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
    """Read the tags of a file in any container. Never raises: tags that are missing or unreadable are empty.

    Text in another encoding than it claims is repaired where that is unambiguous, see `repaired`.
    """
    try:
        with open_regular(Path(path)) as file:
            places = _riff_places(file)
        program = str(Path(__file__).with_name("tag_child.py"))
        done = subprocess.run(
            [sys.executable, program, str(Path(path).absolute()), str(READ_MEMORY_BYTES), json.dumps(places)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=READ_S,
            check=True,
        )
        document = json.loads(done.stdout)
        cover = base64.b64decode(document.pop("cover", ""), validate=True)
        texts = {name: repaired(text) for name, text in document.items()}
    except (OSError, Refused, subprocess.SubprocessError, ValueError, binascii.Error) as error:
        log.info("no tags of %s: %s", shown(path), error)
        return Tags()
    tags = Tags(**texts)
    mime = _picture_mime(cover)
    return replace(tags, cover=cover, cover_mime=mime) if mime else tags


def _riff_places(file: BinaryIO) -> list[tuple[str, int, int]] | None:
    """Where the tags of a WAV or AIFF are: ("INFO" or "id3", offset, bytes); None for another format."""
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
    """Repair wrongly decoded text, and make it one line without control characters.

    Two mistakes are unambiguous: UTF-8 decoded as Latin-1 ("BeyoncÃ©"), which looks like no language, and Windows-1252
    decoded as Latin-1, which turns quotation marks into control characters. A Cyrillic or Japanese code page decoded as
    Latin-1 cannot be told from Latin-1 and stays as it is.
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


def write_tags(path: Path | str, tags: Tags, *, bpm: float | None = None, key: str | None = None) -> None:
    """Write tags, a tempo and a key to a delivered file; its other tags stay.

    Args:
        path: of the file
        tags: empty fields are not written
        bpm: rounded to hundredths (MP4: to an integer)
        key: "A minor" or "Am", both written as "Am"; other text, such as a Camelot code, is written unchanged

    Raises:
        OutputError: the file cannot hold tags; it is left unchanged
        NoSpaceLeft: the disk is full; the file is left unchanged
    """
    path = Path(path)
    tempo, key = (f"{bpm:.2f}".rstrip("0").rstrip(".") if bpm else ""), short_key(key or "")
    if not (tags.texts() or tags.cover or tempo or key):
        return
    try:
        header = inspect(path)
    except AudioError as error:
        raise OutputError(f"Cannot write tags: {error}") from error
    writers = {"FLAC": _write_flac, "AIFF": _write_aiff, "MP3": _write_mp3, "MP4": _write_mp4}
    try:
        if header.container in ("WAV", "RF64"):
            _write_wav(path, tags, tempo, key)
        elif header.container in writers:
            _on_a_copy(path, lambda copy: writers[header.container](copy, tags, tempo, key))
        else:
            raise OutputError(f"{shown(path)} is {header.container}, which cannot hold tags.")
    except (TsbsDawError, KeyboardInterrupt):
        raise
    except Exception as error:  # mutagen raises many kinds of errors, and wraps those of the system
        cause = next((e for e in (error, error.__cause__, error.__context__) if isinstance(e, OSError)), None)
        if cause:
            raise write_error(path, cause) from error
        raise OutputError(f"Cannot write tags to {shown(path)} ({type(error).__name__}: {error}).") from error


def short_key(key: str) -> str:
    """The short form of a key: "Am" for "A minor", "Bb" for "Bb major"; other text is unchanged."""
    tonic, _, mode = key.partition(" ")
    return tonic + {"minor": "m", "major": ""}[mode] if mode in ("minor", "major") else key


def _on_a_copy(path: Path, write: Callable[[Path], None]) -> None:
    """Let `write` change a copy, then replace the file by it, so that no reader sees a half-written file."""
    copy = path.with_name(f".{path.name}.tagging")
    try:
        shutil.copyfile(path, copy)
        write(copy)
        with copy.open("rb+") as file:
            sync_file(file.fileno())
        copy.replace(path)
    finally:
        copy.unlink(missing_ok=True)


def _fill_id3(frames, tags: Tags, tempo: str, key: str) -> None:
    """Set the ID3v2.3 frames."""
    from mutagen import id3

    texts = tags.texts()
    for field, name in ID3_FRAMES.items():
        if field in texts:
            frames.setall(name, [getattr(id3, name)(encoding=1, text=texts[field])])
    if "comment" in texts:
        frames.setall("COMM", [id3.COMM(encoding=1, lang="eng", desc="", text=texts["comment"])])
    if tempo:
        frames.setall("TBPM", [id3.TBPM(encoding=0, text=tempo)])
    if key:
        frames.setall("TKEY", [id3.TKEY(encoding=1, text=key)])
    if tags.cover:
        picture = id3.APIC(encoding=0, mime=tags.cover_mime, type=FRONT_COVER, desc="", data=tags.cover)
        frames.setall("APIC", [picture])
    frames.update_to_v23()


def _write_wav(path: Path, tags: Tags, tempo: str, key: str) -> None:
    import io

    from mutagen.id3 import ID3

    frames, body = ID3(), io.BytesIO()
    _fill_id3(frames, tags, tempo, key)
    frames.save(body, v1=0, v2_version=3, padding=lambda info: 0)
    texts = {INFO_NAMES[name]: text for name, text in tags.texts().items()}
    info = b"".join(build_chunk(name, text.encode("utf-8") + b"\0") for name, text in texts.items())
    chunks = {b"id3 ": body.getvalue()} | ({b"LIST": b"INFO" + info} if info else {})
    append_chunks(path, chunks, instead_of=(b"id3 ", b"ID3 ", b"INFO"))


def _write_aiff(path: Path, tags: Tags, tempo: str, key: str) -> None:
    from mutagen.aiff import AIFF

    _write_id3(AIFF(path), tags, tempo, key)


def _write_mp3(path: Path, tags: Tags, tempo: str, key: str) -> None:
    from mutagen.mp3 import MP3

    _write_id3(MP3(path), tags, tempo, key)


def _write_id3(file, tags: Tags, tempo: str, key: str) -> None:
    if file.tags is None:
        file.add_tags()
    _fill_id3(file.tags, tags, tempo, key)
    file.save(v2_version=3)


def _write_flac(path: Path, tags: Tags, tempo: str, key: str) -> None:
    from mutagen.flac import FLAC, Picture

    file = FLAC(path)
    for name, text in (tags.texts() | {"bpm": tempo, "initialkey": key}).items():
        if text:
            file[VORBIS_NAMES.get(name, name)] = text
    if tags.cover:
        picture = Picture()
        picture.type, picture.mime, picture.data = FRONT_COVER, tags.cover_mime, tags.cover
        file.clear_pictures()
        file.add_picture(picture)
    file.save()


def _write_mp4(path: Path, tags: Tags, tempo: str, key: str) -> None:
    from mutagen.mp4 import MP4, MP4Cover, MP4FreeForm

    file = MP4(path)
    if file.tags is None:
        file.add_tags()
    for name, text in tags.texts().items():
        if name in MP4_ATOMS:
            file.tags[MP4_ATOMS[name]] = [text]
    numbers = [int(part) for part in tags.track_number.split("/") if part.strip().isdecimal()][:2]
    if numbers and max(numbers) < 1 << 16:
        file.tags["trkn"] = [(numbers[0], numbers[1] if len(numbers) > 1 else 0)]
    if tempo:
        file.tags["tmpo"] = [round(float(tempo))]
    if key:
        file.tags["----:com.apple.iTunes:initialkey"] = [MP4FreeForm(key.encode("utf-8"))]
    if tags.cover:
        kind = MP4Cover.FORMAT_PNG if tags.cover_mime == "image/png" else MP4Cover.FORMAT_JPEG
        file.tags["covr"] = [MP4Cover(tags.cover, imageformat=kind)]
    file.save()
