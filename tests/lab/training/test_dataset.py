from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile
from song_files import STEMS

from tsbs_daw.lab.training.dataset import TrainingExcerpts, read_excerpt, validation_excerpts
from tsbs_daw.lab.training.recipe import AugmentPart, DataPart
from tsbs_daw.lab.training.song_folders import read_songs

RATE = 1000  # nothing here depends on the rate; small files read faster
PLAIN = AugmentPart(gain_min_db=0, gain_max_db=0, swap_channels=0, flip_polarity=0, silence_stem=0)
STEP = 2.0**-16  # each sample tells its own position, exactly in float32


@pytest.fixture
def telling_songs(tmp_path: Path):
    """Songs whose samples say where they are from: song + stem / 8 + position * STEP."""
    for number in range(3):
        folder = tmp_path / str(number)
        folder.mkdir()
        for index, stem in enumerate(STEMS):
            wave = 1 + number + index / 8 + np.arange(4 * RATE) * STEP
            soundfile.write(folder / f"{stem}.wav", np.stack([wave, -wave], 1), RATE, subtype="FLOAT")
    songs, problems = read_songs(sorted(tmp_path.iterdir()), STEMS, RATE)
    assert not problems
    return songs


def _excerpts(songs, *, seed=5, batch=2, rank=0, augment=PLAIN, **data) -> TrainingExcerpts:
    return TrainingExcerpts(songs, DataPart(segment_s=0.5, **data), augment, seed=seed, batch=batch, rank=rank)


def _origin(target: np.ndarray) -> tuple[int, int, int]:
    """(song, stem, start) of a target (2, samples) from telling_songs."""
    first = float(target[0, 0]) - 1
    song, rest = int(first), first - int(first)
    stem = int(rest * 8)
    return song, stem, round((rest - stem / 8) / STEP)


def test_an_example_is_a_function_of_seed_pass_and_number(telling_songs):
    one, other = _excerpts(telling_songs), _excerpts(telling_songs)
    late = one[7]
    for number in (0, 3, 7):
        assert np.array_equal(one[number], other[number])
    assert np.array_equal(late, one[7])
    assert not np.array_equal(one[7], one[8])
    assert not np.array_equal(one[7][0], one[7][1])
    assert not np.array_equal(late, _excerpts(telling_songs, seed=6)[7])


def test_the_devices_of_a_run_share_one_order_of_examples(telling_songs):
    alone = _excerpts(telling_songs, batch=4)[2]
    first, second = (_excerpts(telling_songs, batch=2, rank=rank)[2] for rank in (0, 1))
    assert np.array_equal(alone, np.concatenate([first, second]))


def test_targets_have_their_shape_and_their_stem(telling_songs):
    batch = _excerpts(telling_songs)[0]
    assert batch.shape == (2, 4, 2, 500)
    assert batch.dtype == np.float32
    for example in batch:
        assert [_origin(target)[1] for target in example] == [0, 1, 2, 3]
        assert np.array_equal(example[:, 0], -example[:, 1])


def test_coherent_examples_come_from_one_place_of_one_song(telling_songs):
    excerpts = _excerpts(telling_songs, coherent_probability=1)
    for number in range(5):
        song, _, start = _origin(excerpts.example(number, 0)[0])
        assert [_origin(target) for target in excerpts.example(number, 0)] == [(song, s, start) for s in range(4)]


def test_other_examples_mix_songs_and_places(telling_songs):
    excerpts = _excerpts(telling_songs, coherent_probability=0)
    origins = [[_origin(target) for target in excerpts.example(number, 0)] for number in range(10)]
    assert any(len({song for song, _, _ in example}) > 1 for example in origins)
    assert any(len({start for _, _, start in example}) > 1 for example in origins)
    assert {song for example in origins for song, _, _ in example} == {0, 1, 2}


def test_excerpts_stay_inside_the_song(telling_songs):
    excerpts = _excerpts(telling_songs, active_share=0.5)
    starts = [_origin(target)[2] for number in range(40) for target in excerpts.example(number, 0)]
    assert min(starts) >= 0
    assert max(starts) <= 3500
    assert max(starts) - min(starts) > 2000


def test_excerpts_prefer_seconds_where_the_stem_sounds(tmp_path):
    wave = np.zeros((20 * RATE, 2), np.float32)
    wave[12 * RATE : 13 * RATE] = 0.5
    for stem in STEMS:
        soundfile.write(tmp_path / f"{stem}.wav", wave, RATE)
    songs, _ = read_songs([tmp_path], STEMS, RATE)
    active = _excerpts(songs, active_share=1.0)
    sounding = np.mean([active.example(number, 0)[0].any() for number in range(60)])
    assert sounding > 0.6  # by chance alone it would be 0.07
    anywhere = _excerpts(songs, active_share=0.0)
    assert np.mean([anywhere.example(number, 0)[0].any() for number in range(60)]) < 0.3


def test_a_song_shorter_than_a_segment_is_padded(tmp_path):
    for stem in STEMS:
        soundfile.write(tmp_path / f"{stem}.wav", np.full((200, 2), 0.5, np.float32), RATE, subtype="FLOAT")
    songs, _ = read_songs([tmp_path], STEMS, RATE)
    target = _excerpts(songs).example(0, 0)[0]
    assert target.shape == (2, 500)
    assert np.all(target[:, :200] == 0.5)
    assert not target[:, 200:].any()


def test_mono_is_doubled(tmp_path):
    soundfile.write(tmp_path / "mono.wav", np.linspace(-0.5, 0.5, 100), RATE, subtype="FLOAT")
    audio = read_excerpt(tmp_path / "mono.wav", 10, 20)
    assert audio.shape == (2, 20)
    assert np.array_equal(audio[0], audio[1])


def test_validation_excerpts_are_fixed_whole_and_take_turns(telling_songs):
    targets, places = validation_excerpts(telling_songs, segment_s=0.5, excerpts=6, seed=1)
    again, _ = validation_excerpts(telling_songs, segment_s=0.5, excerpts=6, seed=1)
    assert np.array_equal(targets, again)
    assert targets.shape == (6, 4, 2, 500)
    assert [_origin(example[0])[0] for example in targets] == [0, 1, 2, 0, 1, 2]
    assert all(len({_origin(target)[2] for target in example}) == 1 for example in targets)
    assert len(places) == 6
