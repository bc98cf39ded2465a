"""The FFmpeg decoder (PyAV) for formats that libsndfile does not support: AAC, ALAC and the audio of video files.

Like `decoder`, it is a child process, with the same plan, messages, limits and shutdown. The plan has three more
entries:

    demuxer    FFmpeg's name for the container, so that FFmpeg neither guesses the format nor opens other files
    resume     continue after a packet that cannot be decoded
    length_s   null, or the duration of the audio as [numerator, denominator], needed where the last frame is padded

The header message has two more entries: late_s, the delay of the audio relative to the start of the container, and
held_s, the duration that the container states, present only if the audio is its only stream. The end message has two
more: losses, the number of packets skipped because of `resume`, and lost_s, their duration.

FFmpeg removes the encoder delay according to the file's edit list or codec delay.
"""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterator
from fractions import Fraction

import numpy as np

from tsbs_daw.audio import decoder
from tsbs_daw.audio.decoder import Failure, WindowFile, open_source, send, send_json

UNKNOWN_SAMPLES = 1 << 63
SHORTEST_PACKET_BYTES = 16  # a shorter packet may validly be all zeros, for example where Opus sends nothing
MAX_UNREADABLE = 10_000  # packets in a row
FULL_SCALE = {"uint8": 1 << 7, "int16": 1 << 15, "int32": 1 << 31, "int64": 1 << 63}


def decode(plan: dict) -> None:
    """Decode a file according to its plan and send the samples.

    Raises:
        Failure: The file cannot be opened or decoded, or has no audio.
    """
    import av

    window = plan["window"]
    with open_source(plan) as file:
        whole: io.RawIOBase = file
        size = os.fstat(file.fileno()).st_size
        if window:
            whole = WindowFile(file, bytes.fromhex(window["prefix"]), window["parts"])
            size = whole.size
        try:
            container = av.open(whole, format=plan["demuxer"])
        except (av.error.FFmpegError, OSError, ValueError) as error:
            raise Failure("open", str(error)) from error
        with container:
            if not container.streams.audio:
                raise Failure("open", "it has no audio")
            Sender(container, plan).run(lambda: whole.tell() >= size)


class Sender:
    """Decodes the first audio stream and sends it in blocks.

    Args:
        container: Open PyAV container with at least one audio stream.
        plan: The plan described above.
    """

    def __init__(self, container, plan: dict):
        self.container, self.plan = container, plan
        self.stream = container.streams.audio[0]
        self.stream.codec_context.thread_count = 1  # each thread reserves address space, and audio needs only one
        self.start, self.done, self.end = plan["start_samples"], 0, None
        self.is_pcm = self.stream.codec_context.name.startswith("pcm_")
        self.kind: tuple[int, int] | None = None
        self.waiting: list[np.ndarray] = []
        self.losses, self.lost_s = 0, 0.0

    def run(self, at_end) -> None:
        """Decode the stream and send all of it.

        Args:
            at_end: Function that returns whether the file was read to its end.

        Raises:
            Failure: FFmpeg failed. Everything before the failure has been sent.
        """
        import av

        try:
            for frames in self.frames():
                self.take(frames)
                if self.end is not None and self.done >= self.end:
                    break
        except (av.error.FFmpegError, OSError, ValueError) as error:
            if self.kind is None:
                raise Failure("decode", str(error)) from error
            self.flush()
            raise Failure("decode", str(error), self.done, at_end()) from error
        if self.kind is None:
            self.send_header(self.stream.codec_context.sample_rate, self.stream.codec_context.channels, 0, 0.0)
        self.flush()
        losses = {"losses": self.losses, "lost_s": self.lost_s}
        send_json(b"E", {"samples": self.done, "left_bytes": 0} | losses)

    def frames(self) -> Iterator[np.ndarray]:
        """Yield decoded frames, and send the header before the first.

        Raises:
            Failure: The sample rate or the number of channels changes.

        Shape:
            yields: (samples, channels), float32
        """
        for frame in self.decoded():
            channels = len(frame.layout.channels)
            if self.kind is None:
                self.announce(frame, channels)
            elif self.kind != (frame.sample_rate, channels):
                self.flush()
                raise Failure("change", changed(self.kind, frame.sample_rate, channels), self.done)
            samples = frame.to_ndarray()
            samples = samples.T if frame.format.is_planar else samples.reshape(-1, channels)
            yield as_float(samples)

    def decoded(self) -> Iterator:
        """Yield FFmpeg's frames. With `resume` in the plan, skip and count packets that cannot be decoded."""
        import av

        for packet in self.packets():
            try:
                if packet.is_corrupt:
                    raise ValueError("part of a packet is missing")
                if packet.size >= SHORTEST_PACKET_BYTES and not self.is_pcm and not any(bytes(packet)):
                    raise ValueError("a packet contains only zeros")
                yield from packet.decode()
            except (av.error.FFmpegError, ValueError):
                if not self.plan["resume"] or self.kind is None:
                    raise
                self.lost_s += float((packet.duration or 0) * packet.time_base)
                self.losses += 1

    def packets(self) -> Iterator:
        """Yield the stream's packets, then an empty packet, which flushes the codec.

        With `resume` in the plan, continue after a packet that cannot be read. FFmpeg reports such a packet as an error
        or as the end of the file, and resumes with the next packet when demuxing is started again.
        """
        import av

        passed, unreadable, flush = 0, 0, None
        due: int | None = None  # presentation time of the next packet
        while unreadable < MAX_UNREADABLE:
            try:
                for packet in self.container.demux(self.stream):
                    if not packet.size:
                        flush = packet
                        continue
                    if unreadable and due is not None and packet.pts is not None:
                        self.lost_s += float(max(packet.pts - due, 0) * packet.time_base)
                    # Unreadable packets at the end are no losses: they are missing, and the length will tell.
                    self.losses += unreadable
                    passed, unreadable = passed + unreadable + 1, 0
                    due = None if packet.pts is None else packet.pts + (packet.duration or 0)
                    yield packet
                if not self.plan["resume"] or passed + unreadable >= self.stream.frames:
                    break
            except av.error.InvalidDataError:
                if not self.plan["resume"] or self.kind is None:
                    raise
            unreadable += 1
        if flush is not None:
            yield flush

    def announce(self, frame, channels: int) -> None:
        """Send the header, with the properties of the first frame."""
        rate, length_s = frame.sample_rate, self.plan["length_s"]
        if length_s:
            self.end = round(Fraction(*length_s) * rate)
        late_s = 0.0
        if frame.pts is not None and self.container.start_time is not None and len(self.container.streams) > 1:
            late_s = float(frame.pts * frame.time_base) - self.container.start_time / 1e6
        self.send_header(rate, channels, UNKNOWN_SAMPLES if self.end is None else self.end, late_s)

    def send_header(self, rate: int, channels: int, samples: int, late_s: float) -> None:
        """Send the header message."""
        self.kind = (rate, channels)
        info = {"samples": samples, "sample_rate": rate, "channels": channels, "late_s": late_s}
        info["state"] = self.plan["state"]
        if len(self.container.streams) == 1 and self.container.duration:  # otherwise another stream may be longer
            info["held_s"] = self.container.duration / 1e6
        names = {"container": self.container.format.name, "subtype": self.stream.codec_context.name.upper()}
        send_json(b"H", info | names)

    def take(self, frames: np.ndarray) -> None:
        """Buffer the frames' samples that belong to the requested portion, and send them once they fill a block.

        Shape:
            frames: (samples, channels)
        """
        if self.end is not None:
            frames = frames[: self.end - self.done]
        skip = min(max(self.start - self.done, 0), len(frames))
        self.done += len(frames)
        if skip < len(frames):
            self.waiting.append(frames[skip:])
        if sum(map(len, self.waiting)) >= self.plan["block_samples"]:
            self.flush()

    def flush(self) -> None:
        """Send the buffered samples."""
        if self.waiting:
            block = np.ascontiguousarray(np.concatenate(self.waiting), np.float32)
            send(b"D", block.data.cast("B"))
        self.waiting = []


def changed(kind: tuple[int, int], rate: int, channels: int) -> str:
    """Describe the new sample rate and number of channels of a stream that changes, as "44100 Hz and 1 channel"."""
    new = [f"{rate} Hz"] if rate != kind[0] else []
    new += [f"{channels} channel{'s' if channels != 1 else ''}"] if channels != kind[1] else []
    return " and ".join(new)


def as_float(samples: np.ndarray) -> np.ndarray:
    """Convert samples to float32. Integers of any width are scaled to full scale 1.0; floats keep their values."""
    full = FULL_SCALE.get(samples.dtype.name)
    if full is None:
        return samples.astype(np.float32)
    centre = 128 if samples.dtype == np.uint8 else 0
    return ((samples.astype(np.float64) - centre) / full).astype(np.float32)


if __name__ == "__main__":
    status = decoder.main(sys.argv[1:], decode)
    os._exit(status)
