"""What a delivered file says of the song that it is a part of."""

from __future__ import annotations

from pathlib import Path

import mutagen
import pytest
import signals
import soundfile
from batch.songs import analysis
from wav_loops import acid_of

from tsbs_daw.audio.dsp import Levels
from tsbs_daw.audio.tags import Tags
from tsbs_daw.contracts.analysis import Beats, Tempo
from tsbs_daw.contracts.manifest import AudioFile
from tsbs_daw.pipeline.render import Encoding, level_fields
from tsbs_daw.pipeline.resolve import JobContext
from tsbs_daw.pipeline.song_info import SongInfo

RATE = 22050


def encoded(folder: Path, **found: object) -> Path:
    """Two seconds of drums, delivered. Args: found: what the analysis says that is not usual"""
    soundfile.write(folder / "raw.wav", signals.noise(2 * RATE, channels=1).T, RATE, subtype="FLOAT")
    facts = SongInfo("Song", "", "Song", analysis(120.0).model_copy(update=found))
    levels = level_fields(Levels(-1.0, -1.0, -9.0, None, 2 * RATE))
    drums = AudioFile(name="drums", kind="stem", file="drums", sources=("drums",), size_bytes=0, **levels)
    context = JobContext("job", lambda fraction, message: None, lambda: False)
    encoding = Encoding("wav24", 0.0, 0, facts, Tags())
    encoding.encode(folder / "raw.wav", drums, folder / "drums.wav", report=lambda samples: None, context=context)
    return folder / "drums.wav"


@pytest.mark.parametrize(("doubtful", "meter"), [(False, (3, 4)), (True, (4, 4))])
def test_a_steady_songs_files_say_its_tempo_and_its_bars_where_they_are_sure(tmp_path: Path, doubtful: bool, meter):
    path = encoded(tmp_path, beats=Beats(beats_per_bar=3, meter_doubtful=doubtful))
    found = acid_of(path)
    assert (found["bpm"], found["meter"]) == (120, meter)
    assert mutagen.File(path).tags["TBPM"].text == ["120"]


def test_nothing_invites_a_daw_to_stretch_a_song_whose_tempo_changes(tmp_path: Path):
    path = encoded(tmp_path, tempo=Tempo(bpm=120.0, confidence=0.9, doubtful=False, steady=False))
    assert acid_of(path) is None
    assert mutagen.File(path).tags["TBPM"].text == ["120"]
