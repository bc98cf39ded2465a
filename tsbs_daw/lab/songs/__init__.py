"""Songs made from nothing: a composer, instruments, voices and a mixing desk that write multitrack songs by seed.

    compose(seed)          -> Score: key, tempo, form, chords, and every part's notes
    render(score)          -> stems {name: (2, samples) float32}; the mixture is exactly their sum
    compose_demo(seed)     -> a short complete song
    render_dataset(folder) -> many songs in MUSDB18-HQ's layout, with the truth about each in song.json

The same seed gives the same song, bit for bit, on one machine with the same versions of numpy and pedalboard.
"""

from __future__ import annotations

import numpy as np

from tsbs_daw.lab.songs.compose import compose
from tsbs_daw.lab.songs.dataset import render_dataset
from tsbs_daw.lab.songs.dsp import SAMPLE_RATE, stream
from tsbs_daw.lab.songs.render import render

__all__ = ["compose", "compose_demo", "render", "render_dataset"]


DEMO_STYLES = ("pop", "soul", "synthwave", "ballad", "house")


def compose_demo(seed: int = 9905, seconds: float = 20.0) -> tuple[dict[str, np.ndarray], int]:
    """A song with vocals, drums, bass and other throughout.

    Args:    seed: another one, another song; the default lies in the range kept for testing
    Returns: ({"vocals", "drums", "bass", "other"}: (2, samples) float32, 44100); the mixture is their sum
    """
    style = str(stream(seed, "demo").choice(DEMO_STYLES))
    return render(compose(seed, seconds, style=style, complete=True)), SAMPLE_RATE
