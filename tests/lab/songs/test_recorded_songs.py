"""Songs played on a material pack: whole or in part, the same by seed, and clean at every stem."""

from __future__ import annotations

import json

import numpy as np
import pytest
import soundfile as sf
from lab.songs.pack import RATE, PackWriter, write_pack

from tsbs_daw.core.errors import UsageError
from tsbs_daw.lab.__main__ import main
from tsbs_daw.lab.songs import compose, render
from tsbs_daw.lab.songs.casting import SHARES, cast
from tsbs_daw.lab.songs.instruments import BASS_PLAYERS, BASSES, OTHER_PLAYERS, OTHERS
from tsbs_daw.lab.songs.material import open_material
from tsbs_daw.lab.songs.recorded_parts import play_recorded_part
from tsbs_daw.lab.songs.render import BASS_FAMILIES, FAMILIES
from tsbs_daw.lab.songs.score import STEMS, Note, Part


@pytest.fixture(scope="module")
def pack(tmp_path_factory):
    return write_pack(tmp_path_factory.mktemp("pack"))


@pytest.fixture(scope="module")
def material(pack):
    return open_material(pack)


def test_every_family_has_players_and_every_player_is_in_the_table():
    assert set(BASS_PLAYERS) == set(BASS_FAMILIES)
    assert set(OTHER_PLAYERS) == set(FAMILIES) - {"sweep"}
    assert {name for names in BASS_PLAYERS.values() for name in names} <= set(BASSES)
    assert {name for names in OTHER_PLAYERS.values() for name in names} <= set(OTHERS)
    for entry in (*BASSES.values(), *OTHERS.values()):
        assert not entry.muted or entry.muted in BASSES | OTHERS


def test_shares_of_a_part_add_up_to_one():
    for stem in STEMS:
        assert sum(SHARES[stem].values()) == pytest.approx(1.0)


def test_the_same_seed_and_pack_sound_the_same_bit_for_bit(material):
    first, second = (render(cast(compose(1004, 6.0), "builtin", material), material) for _ in range(2))
    for name in STEMS:
        assert np.array_equal(first[name], second[name])


def test_recordings_play_most_parts_and_stay_in_their_stems(material):
    engines = {stem: [] for stem in STEMS}
    for seed in range(1000, 1040):
        for part in cast(compose(seed, 10.0), "builtin", material).parts:
            engines[part.stem].append(part.timbre.get("engine", "builtin"))
    for stem in ("drums", "bass", "other"):
        recorded = np.mean([engine != "builtin" for engine in engines[stem]])
        assert 0.4 < recorded < 0.9, stem
    assert "builtin" in engines["vocals"]


@pytest.mark.parametrize("seed", [1000, 1002, 1005, 1011])
def test_stems_are_finite_below_full_scale_and_without_dc(material, seed):
    stems = render(cast(compose(seed, 8.0, complete=True), "builtin", material), material)
    for name, stem in stems.items():
        assert np.isfinite(stem).all(), name
        assert np.abs(stem).max() <= 0.98
        assert stem.any(), name
        assert np.abs(stem.mean(axis=1)).max() < 2e-3, name


def test_a_bass_part_sounds_at_its_pitch_and_only_while_it_plays(material):
    score = compose(1000, 4.0)
    notes = (Note(0.0, 2.0, 33.0, 0.9),)
    part = Part("bass", "bass", notes, {"instrument": "electric fingered"})
    sound = play_recorded_part(part, score, 4 * RATE, material, np.random.default_rng(1))
    held = int(score.seconds(1.5) * RATE)
    spectrum = np.abs(np.fft.rfft(sound[0, 2000:held] * np.hanning(held - 2000), 2 * RATE))
    assert np.argmax(spectrum) / 2 == pytest.approx(55.0, abs=1.0)
    assert not sound[:, int((score.seconds(2.0) + 0.15) * RATE) :].any()


def test_part_of_a_pack_is_a_pack(tmp_path):
    folder = write_pack(tmp_path)
    for row in json.loads((folder / "index.json").read_text())[::2]:
        (folder / row["path"]).unlink()
    assert main(["render", str(tmp_path / "out"), "--songs", "2", "--seconds", "4", "--material", str(folder)]) == 0
    for song in (tmp_path / "out" / "train").iterdir():
        stems = [sf.read(song / f"{name}.wav", dtype="int16")[0].astype(np.int32) for name in STEMS]
        assert np.array_equal(sum(stems), sf.read(song / "mixture.wav", dtype="int16")[0])


@pytest.mark.parametrize("index", [None, "not json", '[{"path": "a.wav"}]', "[]", '{"path": 1}'])
def test_a_folder_without_a_usable_index_is_refused_in_one_sentence(tmp_path, index, capsys):
    (tmp_path / "a.wav").write_bytes(b"")
    if index is not None:
        (tmp_path / "index.json").write_text(index)
    arguments = ["render", str(tmp_path / "out"), "--songs", "1", "--seconds", "2", "--material", str(tmp_path)]
    assert main(arguments) == 2
    error = capsys.readouterr().err.strip()
    assert "index.json" in error
    assert len(error.splitlines()) == 1


def test_a_recording_that_cannot_be_decoded_names_its_file(tmp_path):
    pack = PackWriter(tmp_path)
    path = pack.add_tone("piano", "other", "keys-note", 60)
    material = open_material(pack.close())
    (tmp_path / path).write_bytes(b"RIFF nonsense")
    with pytest.raises(UsageError, match=path):
        material.audio(material.recordings[0])


def test_held_out_timbres_refuse_a_pack(material):
    with pytest.raises(UsageError, match="material"):
        cast(compose(9500, 4.0), "heldout", material)
