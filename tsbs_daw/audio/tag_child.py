"""The process that reads the tags of a file.

Tags can be compressed, nested and wrong, and what they do to memory or time stays in this process. The request holds
the `path`, `memory_bytes`, and `places`: the tags of a WAV or AIFF as [kind, offset, bytes], kind being "INFO" or
"id3"; null for other formats.

The answer has the fields of `tags.Tags`; `cover` is base64. Text is as the file has it, even in a wrong encoding: the
parent repairs it. INFO states no encoding, so each of its bytes becomes one character.
"""

from __future__ import annotations

import base64
import contextlib
import struct
from pathlib import Path
from typing import Any, BinaryIO

from tsbs_daw.core import child

COVER_BYTES = 16 << 20
INFO_BYTES = 1 << 20
FRONT_COVER = 3

# field: ID3 frame, Vorbis comment, MP4 atom, RIFF INFO
FIELDS = {
    "artist": ("TPE1", "artist", "\xa9ART", b"IART"),
    "title": ("TIT2", "title", "\xa9nam", b"INAM"),
    "album": ("TALB", "album", "\xa9alb", b"IPRD"),
    "date": ("TDRC", "date", "\xa9day", b"ICRD"),
    "genre": ("TCON", "genre", "\xa9gen", b"IGNR"),
    "track_number": ("TRCK", "tracknumber", "trkn", b"ITRK"),
    "comment": ("COMM", "comment", "\xa9cmt", b"ICMT"),
}


def best_picture(pictures: list) -> bytes | None:
    """The bytes of the front cover, else of the first picture. Pictures have `.type` and `.data`."""
    ordered = sorted(pictures, key=lambda picture: picture.type != FRONT_COVER)
    return next((bytes(picture.data) for picture in ordered if 0 < len(picture.data) <= COVER_BYTES), None)


def of_id3(tags) -> dict:
    found = {}
    for field, (frame, *_) in FIELDS.items():
        frames = tags.getall(frame)
        if field == "comment":  # players store private notes under a description
            frames = sorted((f for f in frames if not f.desc.startswith("iTun")), key=lambda f: f.desc != "")
        if frames:
            values = frames[0].genres if field == "genre" else frames[0].text
            found[field] = ", ".join(str(value) for value in values)
    return found | {"cover": best_picture(tags.getall("APIC"))}


def of_vorbis(file) -> dict:
    from mutagen.flac import Picture

    found = {}
    for field, (_, name, *_) in FIELDS.items():
        values = file.tags.get(name) or (file.tags.get("description") if field == "comment" else None)
        if values:
            found[field] = ", ".join(values)
    pictures = list(getattr(file, "pictures", ()))
    for text in file.tags.get("metadata_block_picture", ()):
        with contextlib.suppress(Exception):  # skip a damaged picture
            pictures.append(Picture(base64.b64decode(text)))
    return found | {"cover": best_picture(pictures)}


def of_mp4(tags) -> dict:
    found = {}
    for field, (_, _, atom, _) in FIELDS.items():
        values = tags.get(atom)
        if values and atom == "trkn":
            number, total = values[0]
            found[field] = f"{number}/{total}" if total else str(number)
        elif values:
            found[field] = ", ".join(str(value) for value in values)
    covers = (bytes(cover) for cover in tags.get("covr", ()) if 0 < len(cover) <= COVER_BYTES)
    return found | {"cover": next(covers, None)}


def of_riff(file: BinaryIO, places: list[tuple[str, int, int]]) -> dict:
    """The tags of a WAV: ID3 first, because it states its encoding; INFO for what ID3 leaves out."""
    from mutagen.id3 import ID3

    named = {info: field for field, (_, _, _, info) in FIELDS.items()} | {b"IPRT": "track_number"}
    tags: dict = {}
    for kind, offset, size in places:
        file.seek(offset)
        if kind == "INFO":
            tags = of_info(file.read(min(size, INFO_BYTES)), named) | tags
        else:
            with contextlib.suppress(Exception):  # INFO may still be readable
                tags |= {key: value for key, value in of_id3(ID3(file)).items() if value}
    return tags


def of_info(body: bytes, named: dict[bytes, str]) -> dict:
    found: dict = {}
    position = 0
    while position + 8 <= len(body):
        name, size = struct.unpack_from("<4sI", body, position)
        text = body[position + 8 : position + 8 + size].split(b"\0")[0]
        if name in named and text:
            found.setdefault(named[name], text.decode("latin-1"))
        position += 8 + size + size % 2
    return found


def read(path: str, places: list[tuple[str, int, int]] | None) -> dict:
    import mutagen
    from mutagen.id3 import ID3
    from mutagen.mp4 import MP4Tags

    with Path(path).open("rb") as file:
        if places is not None:
            return of_riff(file, places)
        song = mutagen.File(file)
    if song is None or song.tags is None:
        return {}
    if isinstance(song.tags, ID3):
        return of_id3(song.tags)
    return of_mp4(song.tags) if isinstance(song.tags, MP4Tags) else of_vorbis(song)


def answer(request: dict[str, Any]) -> dict[str, str]:
    """The child's part: see `core.child`."""
    child.limit_memory(request["memory_bytes"])
    found = {key: value for key, value in read(request["path"], request["places"]).items() if value}
    if "cover" in found:
        found["cover"] = base64.b64encode(found["cover"]).decode("ascii")
    return found


if __name__ == "__main__":
    child.answer(answer)
