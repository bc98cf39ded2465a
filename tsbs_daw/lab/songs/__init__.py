"""Generator of songs: composes, plays, sings and mixes multitrack songs from a seed.

    compose(seed)          -> Score: key, tempo, form, chords, and every part's notes
    render(score)          -> stems {name: (2, samples) float32}; the mixture is exactly their sum
    compose_demo(seed)     -> a short complete song
    render_dataset(folder) -> many songs in MUSDB18-HQ's layout, with the truth about each in song.json

On one machine with the same versions of numpy and pedalboard, the same seed gives bit-identical songs.
"""

from __future__ import annotations

import numpy as np

from tsbs_daw.lab.songs.compose import compose
from tsbs_daw.lab.songs.dsp import SAMPLE_RATE, stream
from tsbs_daw.lab.songs.render import render, render_dataset

__all__ = ["compose", "compose_demo", "render", "render_dataset"]


DEMO_STYLES = ("pop", "soul", "synthwave", "ballad", "house")


def compose_demo(seed: int = 9905, seconds: float = 20.0) -> tuple[dict[str, np.ndarray], int]:
    """Generate a song with vocals, drums, bass and other throughout.

    Args:
        seed: Selects the song; the default is in the range for testing.
        seconds: Length of the song.

    Returns:
        ({"vocals", "drums", "bass", "other"}: (2, samples) float32, 44100). The mixture is the sum of the stems.
    """
    style = str(stream(seed, "demo").choice(DEMO_STYLES))
    return render(compose(seed, seconds, style=style, complete=True)), SAMPLE_RATE
