"""The formats that songs are delivered in: their names, as presets and jobs give them, and what each can hold.

Imports nothing heavy: whoever checks a preset needs no decoder.
"""

from __future__ import annotations

from dataclasses import dataclass

from tsbs_daw.core.errors import OutputError


@dataclass(frozen=True)
class DeliveryFormat:
    """container, subtype: as libsndfile names them; bits: of a sample, None where it is not an integer

    exact: what is read back has the samples that were written, but for the bits that were cut
    """

    name: str
    ending: str
    container: str
    subtype: str
    bits: int | None
    exact: bool = True


DELIVERY_FORMATS = {
    form.name: form
    for form in (
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


def delivery_format(name: str) -> DeliveryFormat:
    """Raises: OutputError: there is no such format"""
    if name not in DELIVERY_FORMATS:
        raise OutputError(f"There is no delivery format {name!r}; choose one of {', '.join(DELIVERY_FORMATS)}.")
    return DELIVERY_FORMATS[name]


def file_ending(name: str) -> str:
    """ ".wav", ".flac", ... Raises: OutputError: there is no such format"""
    return delivery_format(name).ending
