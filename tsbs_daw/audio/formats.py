"""The delivery formats: their names in presets and jobs, and their properties.

This is the only list of formats. The module imports no codec, so that presets can be checked without one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tsbs_daw.core.errors import OutputError


@dataclass(frozen=True)
class DeliveryFormat:
    """A delivery format.

    Attributes:
        name: Name in presets and jobs.
        ending: File extension, with the dot.
        container: libsndfile's name for the container.
        subtype: libsndfile's name for the sample format.
        bits: Bits per sample; None if it is not an integer format.
        exact: Whether the file, read back, has the written samples, except for the reduced bit depth.
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

# Common names; each stands for the best format of its kind.
FORMAT_ALIASES = {"wav": "wav32f", "flac": "flac24", "aiff": "aiff24"}


def canonical_format(name: Any) -> Any:
    """Normalise a format name: `flac` and `FLAC24` become `flac24`.

    Any other value is returned unchanged, so that the validation that follows can reject it.
    """
    if not isinstance(name, str):
        return name
    lower = name.strip().lower()
    known = FORMAT_ALIASES.get(lower, lower)
    return known if known in DELIVERY_FORMATS else name


def delivery_format(name: str) -> DeliveryFormat:
    """Look up a format by name.

    Raises:
        OutputError: There is no such format.
    """
    if name not in DELIVERY_FORMATS:
        raise OutputError(f"There is no delivery format {name!r}; choose one of {', '.join(DELIVERY_FORMATS)}.")
    return DELIVERY_FORMATS[name]


def file_ending(name: str) -> str:
    """The file extension of a format, with the dot: ".wav", ".flac", ...

    Raises:
        OutputError: There is no such format.
    """
    return delivery_format(name).ending
