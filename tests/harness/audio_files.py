"""Audio files that several tests of reading take apart."""

from __future__ import annotations

import io

import numpy as np
import pytest
import signals

from tsbs_daw.audio.read import open_audio

SECOND = 44100
SOUND = signals.sweep(3 * 48000) + signals.noise(3 * 48000, amplitude=0.02)


def read_all(path, **options) -> tuple[np.ndarray, str]:
    with open_audio(path, **options) as reader:
        return np.concatenate(list(reader.blocks()), axis=1), " ".join(reader.info.warnings)


def aac(rate: int = 44100, channels: int = 2, container: str = "adts") -> bytes:
    """Three seconds of AAC."""
    av = pytest.importorskip("av")
    out = io.BytesIO()
    with av.open(out, "w", format=container) as file:
        stream = file.add_stream("aac", rate=rate, layout="stereo" if channels == 2 else "mono")
        frame = av.AudioFrame.from_ndarray(
            np.ascontiguousarray(SOUND[:channels, : 3 * rate]), "fltp", "stereo" if channels == 2 else "mono"
        )
        frame.sample_rate = rate
        for packet in [*stream.encode(frame), *stream.encode(None)]:
            file.mux(packet)
    return out.getvalue()
