"""The table of `evaluate --real --compare-quality`: each step against normal quality, on the same songs."""

from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
from signals import RATE, noise
from song_files import STEMS

from tsbs_daw import cli
from tsbs_daw.core.errors import UsageError
from tsbs_daw.lab.evaluation.quality import ROWS, Variant, _estimates, compare_qualities
from tsbs_daw.lab.evaluation.songs import KnownSong
from tsbs_daw.separation.separator import QUALITIES, Separator


class Uneven:
    """Vocals with an error that has the same sign whatever the polarity, so that the mean of both has none."""

    stems, precision, chunk_samples = STEMS, "float32", RATE

    def __init__(self, name: str = "uneven", error: float = 0.1):
        self.name, self.error, self.model_hash = name, error, name
        self.members: tuple[Uneven, ...] = (self,)
        self.engine = SimpleNamespace(config=SimpleNamespace(sample_rate=RATE))
        self.heard: list[tuple] = []

    def separate(self, audio, sample_rate, *, stage="full", quality="normal"):
        self.heard.append((quality, audio.shape, audio.tobytes()[-4000:]))
        vocals = audio + self.error * np.abs(audio).mean()
        return {stem: vocals.astype(np.float32) if stem == "vocals" else 0 * audio for stem in STEMS}


@pytest.fixture
def songs(tmp_path):
    """Two songs of vocals alone."""
    for number in range(2):
        folder = tmp_path / "songs" / f"song{number}"
        folder.mkdir(parents=True)
        for stem in STEMS:
            audio = 0.1 * noise(2 * RATE, amplitude=1.0, seed=number) * (stem == "vocals")
            soundfile.write(folder / f"{stem}.wav", audio.T, RATE, subtype="FLOAT")
    return tmp_path / "songs"


def test_every_step_stands_in_the_table_with_what_it_wins_and_costs(songs):
    document = compare_qualities(songs, Uneven())
    rows = {row["step"]: row for row in document["rows"]}
    assert document["songs"] == ["song0", "song1"] and list(rows)[: len(ROWS)] == list(ROWS)
    normal = rows[next(iter(ROWS))]
    assert normal["times_normal"] == 1 and normal["mean_won_db"] == 0 and normal["won_db"] == {"vocals": 0}
    polarity = rows["mean of both polarities"]
    assert set(polarity["frame_sdr_db"]) == {"vocals"} and set(polarity["songs"][0]["leak_db"]) == set(STEMS) - {
        "vocals"
    }
    json.dumps(document, allow_nan=False)


def test_each_way_to_hear_a_song_is_separated_once(songs):
    separator = Uneven()
    compare_qualities(songs, separator)
    assert len(set(separator.heard)) == len(separator.heard)


@pytest.mark.parametrize(
    "variant", [Variant(inverted=True), Variant(shift=0.5, inverted=True), Variant(exchanged=True)]
)
def test_an_odd_network_gives_the_same_however_it_hears_the_song(variant):
    audio = 0.1 * noise(RATE, amplitude=1.0, seed=3)
    song = KnownSong("song", RATE, np.zeros((len(STEMS), *audio.shape), np.float32), audio)
    as_it_is = _estimates(song, Uneven(error=0.0), STEMS, Variant())
    np.testing.assert_array_equal(_estimates(song, Uneven(error=0.0), STEMS, variant), as_it_is)


def test_the_mean_of_both_polarities_takes_away_what_is_even():
    audio = 0.1 * noise(RATE, amplitude=1.0, seed=3)
    song = KnownSong("song", RATE, np.zeros((len(STEMS), *audio.shape), np.float32), audio)
    found = [_estimates(song, Uneven(error=0.5), STEMS, Variant(inverted=inverted)) for inverted in (False, True)]
    np.testing.assert_allclose(np.mean(found, axis=0)[STEMS.index("vocals")], audio, atol=1e-6)


def test_every_quality_of_the_program_is_a_row(songs):
    assert set(compare_qualities(songs, Uneven())["qualities"]) == set(QUALITIES)


def test_of_several_models_the_mean_is_measured_too(songs):
    ensemble = Uneven("one", 0.2)
    ensemble.members = (ensemble, Uneven("two", -0.2))
    document = compare_qualities(songs, ensemble)
    rows = {row["step"]: row for row in document["rows"]}
    assert rows["mean with two"]["mean_won_db"] >= 0 and "two alone" in rows
    assert document["models"] == {"one": "one", "two": "two"}


def test_the_command_prints_and_writes_the_table(songs, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(Separator, "load", lambda *arguments, **options: Uneven())
    arguments = ["--real", "--compare-quality", "--data", str(songs), "--out", str(tmp_path / "out.json")]
    assert cli.run(cli.find("evaluate"), arguments) == 0
    assert "overlap of 50 %" in capsys.readouterr().out
    assert json.loads((tmp_path / "out.json").read_text())["rows"][0]["times_normal"] == 1


def test_steps_are_measured_on_real_songs_alone(songs):
    with pytest.raises(UsageError, match="--compare-quality needs --real"):
        cli.run(cli.find("evaluate"), ["--compare-quality", "--data", str(songs)])
