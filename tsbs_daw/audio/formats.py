"""The delivery formats: their names, as presets and jobs use them, and what each can hold.

This is the only list of formats. It imports no decoder, so that presets can be checked without one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tsbs_daw.core.errors import OutputError


@dataclass(frozen=True)
class DeliveryFormat:
    """A delivery format.

    Attributes:
        name: as presets and jobs write it
        ending: of file names, with the dot
        container: libsndfile's name
        subtype: libsndfile's name
        bits: per sample; None: not an integer format
        exact: reading the file back gives the written samples, except for the bits that were cut
    """

    name: str
    ending: str
    container: str
    subtype: str
    bits: int | None
    exact: bool = True


DELIVERY_FORMATS = {
    fmt.name: fmt
    for fmt in (
        DeliveryFormat("wav32f", ".wav", "WAV", "FLOAT", None),
        DeliveryFormat("wav24", ".wav", "WAV", "PCM_24", 24),
        DeliveryFormat("wav16", ".wav", "WAV", "PCM_16", 16),
        DeliveryFormat("flac24", ".flac", "FLAC", "PCM_24", 24),
        DeliveryFormat("flac16", ".flac", "FLAC", "PCM_16", 16),
        DeliveryFormat("aiff24", ".aiff", "AIFF", "PCM_24", 24),
        DeliveryFormat("aiff16", ".aiff", "AIFF", "PCM_16", 16),
        DeliveryFormat("mp3", ".mp3", "MP3", "MPEG_LAYER_III", None, exact=False),
    )
}

# What people call them; each is the best of its kind.
FORMAT_ALIASES = {"wav": "wav32f", "flac": "flac24", "aiff": "aiff24"}


def canonical_format(name: Any) -> Any:
    """`flac24` for `flac` or `FLAC24`. What is neither a format nor an alias comes back as it is, to be refused."""
    if not isinstance(name, str):
        return name
    lower = name.strip().lower()
    known = FORMAT_ALIASES.get(lower, lower)
    return known if known in DELIVERY_FORMATS else name


def delivery_format(name: str) -> DeliveryFormat:
    """Look a format up by name.

    Raises:
        OutputError: there is no such format
    """
    if name not in DELIVERY_FORMATS:
        raise OutputError(f"There is no delivery format {name!r}; choose one of {', '.join(DELIVERY_FORMATS)}.")
    return DELIVERY_FORMATS[name]


def file_ending(name: str) -> str:
    """The file ending of a format: ".wav", ".flac", ...

    Raises:
        OutputError: there is no such format
    """
    return delivery_format(name).ending
