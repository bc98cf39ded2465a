"""Songs made from nothing: a composer, instruments, voices and a mixing desk that write multitrack songs by seed.

    compose(seed)          -> Score: key, tempo, form, chords, and every part's notes
    render(score)          -> stems {name: (2, samples) float32}; the mixture is exactly their sum
    compose_demo(seed)     -> a short complete song
    render_dataset(folder) -> many songs in MUSDB18-HQ's layout, with the truth about each in song.json

The same seed gives the same song, bit for bit, on one machine with the same versions of numpy and pedalboard.
"""

from __future__ import annotations

from tsbs_daw.lab.songs.compose import compose
from tsbs_daw.lab.songs.dataset import render_dataset
from tsbs_daw.lab.songs.demo import compose_demo
from tsbs_daw.lab.songs.render import render

__all__ = ["compose", "compose_demo", "render", "render_dataset"]
