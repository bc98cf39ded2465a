"""Files that libsndfile cannot write: AAC, ALAC, Opus, in the containers of video, with a picture if asked for."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np

BLOCK = 4096


def write_media(
    path: Path,
    sounds: list[np.ndarray],
    sample_rate: int = 44100,
    *,
    codec: str = "aac",
    sample_format: str = "fltp",
    container: str | None = None,
    options: dict[str, str] | None = None,
    picture_s: float = 0.0,
    late_samples: int = 0,
) -> Path:
    """Encode each of `sounds`, (channels, samples), as a stream of its own.

    Args: picture_s: of moving picture beside it; late_samples: how much later than that the sound starts
    """
    import av

    with av.open(str(path), "w", format=container, options=options or {}) as file:
        streams = []
        for sound in sounds:
            stream = file.add_stream(codec, rate=sample_rate, layout="stereo" if sound.shape[0] == 2 else "mono")
            stream.codec_context.format = sample_format
            if codec == "aac":
                stream.bit_rate = 192_000
            streams.append(stream)
        if picture_s:
            video = file.add_stream("mpeg4", rate=25)
            video.width = video.height = 64
            video.pix_fmt = "yuv420p"
            for number in range(round(picture_s * 25)):
                frame = av.VideoFrame.from_ndarray(np.full((96, 64), number % 256, np.uint8), format="yuv420p")
                frame.pts, frame.time_base = number, Fraction(1, 25)
                file.mux(video.encode(frame))
            file.mux(video.encode(None))
        for stream, sound in zip(streams, sounds, strict=True):
            layout = stream.codec_context.layout.name
            convert = av.AudioResampler(format=sample_format, layout=layout, rate=sample_rate)
            stream.codec_context.open(strict=False)
            size = stream.codec_context.frame_size or BLOCK
            for start in range(0, sound.shape[1], size):
                block = np.ascontiguousarray(sound[:, start : start + size])
                frame = av.AudioFrame.from_ndarray(block, format="fltp", layout=layout)
                frame.sample_rate, frame.time_base = sample_rate, Fraction(1, sample_rate)
                frame.pts = start + late_samples
                for converted in convert.resample(frame):
                    file.mux(stream.encode(converted))
            file.mux(stream.encode(None))
    return path


def without_box(data: bytes, name: bytes) -> bytes:
    """The file with every box of this name made a free one, of the same size."""
    return data.replace(name, b"free")


def box_size(data: bytes, at: int) -> int:
    return int.from_bytes(data[at : at + 4], "big")


def with_table(data: bytes, name: bytes, body: bytes) -> bytes:
    """The file with another body of a full box in the index, which lies before the audio. Version and flags stay."""
    at = data.index(name) - 4
    new = (12 + len(body)).to_bytes(4, "big") + name + data[at + 8 : at + 12] + body
    grow = len(new) - box_size(data, at)
    out = bytearray(data[:at] + new + data[at + box_size(data, at) :])
    for place in range(at - 4):  # the boxes around it
        if bytes(out[place + 4 : place + 8]) in (b"moov", b"trak", b"edts", b"mdia", b"minf", b"stbl"):
            end = place + box_size(data, place)
            if at < end:
                out[place : place + 4] = (box_size(data, place) + grow).to_bytes(4, "big")
    chunks = [offset + grow for offset in table(bytes(out), b"stco")] if name != b"stco" else []
    for number, offset in enumerate(chunks):
        place = out.index(b"stco") + 12 + 4 * number
        out[place : place + 4] = offset.to_bytes(4, "big")
    return bytes(out)


def table(data: bytes, name: bytes) -> list[int]:
    """The numbers of `stco`, or of `stsz`."""
    at = data.index(name) + (12 if name == b"stsz" else 8)
    count = box_size(data, at)
    return [box_size(data, at + 4 + 4 * number) for number in range(count)]


def packed(*numbers: int) -> bytes:
    return b"".join(number.to_bytes(4, "big", signed=number < 0) for number in numbers)


def rechunked(data: bytes, per_chunk: int) -> bytes:
    """The same file with its frames, which were one chunk, in several that follow each other."""
    sizes = table(data, b"stsz")
    starts = range(0, len(sizes), per_chunk)
    last = len(sizes) - starts[-1]
    data = with_table(data, b"stsc", packed(2, 1, per_chunk, 1, len(starts), last, 1))
    grow = 4 * (len(starts) - 1)
    (first,) = table(data, b"stco")
    return with_table(data, b"stco", packed(len(starts), *(first + grow + sum(sizes[:start]) for start in starts)))
