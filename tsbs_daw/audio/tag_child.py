"""Child process that reads the tags of a file.

Tags can be compressed, nested or malformed. If reading them hangs or exhausts memory, only this process is affected.
The request has three entries:

    path           file to read
    memory_bytes   limit of the address space
    places         where the tags of a WAV or AIFF are, as a list of [kind, offset, bytes] with the kind "INFO" or
                   "id3"; null for other formats

The answer has the fields of `tags.Tags`; `cover` is base64. Text is returned as decoded from the file, even if the file
states a wrong encoding, because the parent repairs it. INFO states no encoding, so each byte becomes one character.
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

# Field of `tags.Tags`: its ID3 frame, Vorbis comment, MP4 atom and RIFF INFO chunk.
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
    """The bytes of the front cover, or of the first picture if there is none.

    Args:
        pictures: Pictures with the attributes `type` and `data`. Empty ones, and those larger than `COVER_BYTES`, are
            skipped.

    Returns:
        The bytes of the picture; None if there is none.
    """
    ordered = sorted(pictures, key=lambda picture: picture.type != FRONT_COVER)
    return next((bytes(picture.data) for picture in ordered if 0 < len(picture.data) <= COVER_BYTES), None)


def of_id3(tags) -> dict:
    """Read the fields of `tags.Tags` from ID3 frames."""
    found = {}
    for field, (frame, *_) in FIELDS.items():
        frames = tags.getall(frame)
        if field == "comment":  # players store private data in comments with a description
            frames = sorted((f for f in frames if not f.desc.startswith("iTun")), key=lambda f: f.desc != "")
        if frames:
            values = frames[0].genres if field == "genre" else frames[0].text
            found[field] = ", ".join(str(value) for value in values)
    return found | {"cover": best_picture(tags.getall("APIC"))}


def of_vorbis(file) -> dict:
    """Read the fields of `tags.Tags` from the Vorbis comments of a file, such as FLAC or Ogg."""
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
    """Read the fields of `tags.Tags` from MP4 atoms."""
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
    """Read the tags of a WAV or AIFF. ID3 takes precedence, because it states its encoding; INFO fills in the rest."""
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
    """Read the fields of `tags.Tags` from the body of an INFO list.

    Args:
        body: The list, without its type.
        named: The field for each chunk name.
    """
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
    """Read the tags of a file; see the request above."""
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
    """Answer a request of the parent; see `core.child`."""
    child.limit_memory(request["memory_bytes"])
    found = {key: value for key, value in read(request["path"], request["places"]).items() if value}
    if "cover" in found:
        found["cover"] = base64.b64encode(found["cover"]).decode("ascii")
    return found


if __name__ == "__main__":
    child.answer(answer)
