"""The song of `tsbs-daw demo`: short, complete, made of built-in timbres only."""

from __future__ import annotations

import numpy as np

from tsbs_daw.lab.songs.compose import compose
from tsbs_daw.lab.songs.dsp import SAMPLE_RATE, stream
from tsbs_daw.lab.songs.render import render

DEMO_STYLES = ("pop", "soul", "synthwave", "ballad", "house")


def compose_demo(seed: int = 9905, seconds: float = 20.0) -> tuple[dict[str, np.ndarray], int]:
    """A song with vocals, drums, bass and other throughout.

    Args:    seed: another one, another song; the default lies in the range kept for testing
    Returns: ({"vocals", "drums", "bass", "other"}: (2, samples) float32, 44100); the mixture is their sum
    """
    style = str(stream(seed, "demo").choice(DEMO_STYLES))
    return render(compose(seed, seconds, style=style, complete=True)), SAMPLE_RATE
