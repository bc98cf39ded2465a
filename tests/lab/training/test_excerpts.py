from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from song_files import STEMS

from tsbs_daw.lab.training.bank import DeviceStore, SongBank
from tsbs_daw.lab.training.excerpts import TrainingExcerpts, validation_excerpts
from tsbs_daw.lab.training.recipe import AugmentPart, DataPart

RATE = 1000  # nothing here depends on the rate; small files read faster
PLAIN = AugmentPart(gain_min_db=0, gain_max_db=0, swap_channels=0, flip_polarity=0, silence_stem=0)


def _bank(kind: str, folders, tmp_path: Path) -> SongBank:
    if kind == "disk":
        bank = SongBank.on_disk(tmp_path / "bank", STEMS, RATE)
    else:
        bank = SongBank(DeviceStore(len(STEMS), torch.device("cpu"), 40 * RATE), STEMS, RATE)
    assert not bank.fill(folders)
    return bank


@pytest.fixture(params=["disk", "device"])
def telling_songs(tmp_path: Path, request) -> SongBank:
    """Songs whose samples say where they are from: the left channel song and stem, the right one the position."""
    folders = []
    for number in range(3):
        folder = tmp_path / "songs" / str(number)
        folder.mkdir(parents=True)
        folders.append(folder)
        for index, stem in enumerate(STEMS):
            where = np.arange(4 * RATE)
            wave = np.stack([np.full_like(where, 1000 * (number + 1) + 100 * index), 1 + where], 1)
            soundfile.write(folder / f"{stem}.wav", wave.astype(np.int16), RATE, subtype="PCM_16")
    return _bank(request.param, folders, tmp_path)


def _excerpts(bank, *, seed=5, batch=2, rank=0, augment=PLAIN, **data) -> TrainingExcerpts:
    data = {"segment_s": 0.5, **data}
    return TrainingExcerpts([bank], DataPart(**data), augment, seed=seed, batch=batch, rank=rank)


def _origin(target) -> tuple[int, int, int]:
    """(song, stem, start) of a target (2, samples) from telling_songs."""
    code, start = (round(float(value) * 32768) for value in target[:, 0])
    return code // 1000 - 1, code % 1000 // 100, start - 1


def test_a_pass_is_a_function_of_seed_rank_and_number(telling_songs):
    one, other = _excerpts(telling_songs), _excerpts(telling_songs)
    late = one[7]
    for number in (0, 3, 7):
        assert torch.equal(one[number], other[number])
    assert torch.equal(late, one[7])
    assert not torch.equal(one[7], one[8])
    assert not torch.equal(one[7][0], one[7][1])
    assert not torch.equal(late, _excerpts(telling_songs, seed=6)[7])
    assert not torch.equal(late, _excerpts(telling_songs, rank=1)[7])


def test_targets_have_their_shape_and_their_stem(telling_songs):
    batch = _excerpts(telling_songs)[0]
    assert batch.shape == (2, 4, 2, 500)
    assert batch.dtype == torch.float32
    for example in batch:
        assert [_origin(target)[1] for target in example] == [0, 1, 2, 3]
        assert torch.equal(example[:, 1].diff().mul(32768).round(), torch.ones(4, 499))


def test_coherent_examples_come_from_one_place_of_one_song(telling_songs):
    for example in _excerpts(telling_songs, coherent_probability=1, batch=6)[0]:
        song, _, start = _origin(example[0])
        assert [_origin(target) for target in example] == [(song, s, start) for s in range(4)]


def test_other_examples_mix_songs_and_places(telling_songs):
    origins = [[_origin(target) for target in example] for example in _excerpts(telling_songs, batch=12)[0]]
    assert any(len({song for song, _, _ in example}) > 1 for example in origins)
    assert any(len({start for _, _, start in example}) > 1 for example in origins)
    assert {song for example in origins for song, _, _ in example} == {0, 1, 2}


def test_excerpts_stay_inside_the_song(telling_songs):
    starts = [_origin(target)[2] for example in _excerpts(telling_songs, batch=60)[0] for target in example]
    assert min(starts) >= 0
    assert max(starts) <= 3500
    assert max(starts) - min(starts) > 2000


def test_longer_segments_make_smaller_batches_and_all_devices_agree(telling_songs):
    excerpts = _excerpts(telling_songs, batch=6, segments_s=(0.5, 1.0))
    other = _excerpts(telling_songs, batch=6, segments_s=(0.5, 1.0), rank=1)
    shapes = {tuple(excerpts[number].shape) for number in range(12)}
    assert shapes == {(6, 4, 2, 500), (3, 4, 2, 1000)}
    assert all(excerpts[number].shape == other[number].shape for number in range(12))


def test_a_second_source_is_added_to_some_stems(telling_songs):
    mixed = _excerpts(telling_songs, batch=40, augment=PLAIN.model_copy(update={"mixup": 0.5}))[0]
    plain = _excerpts(telling_songs, batch=40)[0]
    changed = (mixed != plain).any(-1).any(-1).float().mean()
    assert 0.3 < changed < 0.7


@pytest.mark.parametrize("kind", ["disk", "device"])
def test_excerpts_prefer_seconds_where_the_stem_sounds(tmp_path, kind):
    wave = np.zeros((20 * RATE, 2), np.float32)
    wave[12 * RATE : 13 * RATE] = 0.5
    (tmp_path / "song").mkdir()
    for stem in STEMS:
        soundfile.write(tmp_path / "song" / f"{stem}.wav", wave, RATE)
    bank = _bank(kind, [tmp_path / "song"], tmp_path)
    active, anywhere = _excerpts(bank, active_share=1.0, batch=60)[0], _excerpts(bank, active_share=0.0, batch=60)[0]
    assert active[:, 0].flatten(1).any(1).float().mean() > 0.6  # by chance alone it would be 0.07
    assert anywhere[:, 0].flatten(1).any(1).float().mean() < 0.3


@pytest.mark.parametrize("kind", ["disk", "device"])
def test_a_song_shorter_than_a_segment_is_padded_with_silence_not_with_the_next_song(tmp_path, kind):
    folders = [tmp_path / "a", tmp_path / "b"]
    for folder in folders:
        folder.mkdir()
        for stem in STEMS:
            soundfile.write(folder / f"{stem}.wav", np.full((200, 2), 0.5, np.float32), RATE, subtype="FLOAT")
    batch = _excerpts(_bank(kind, folders, tmp_path), batch=8)[0]
    assert (batch[..., :200] == 0.5).all()
    assert not batch[..., 200:].any()


def test_sources_are_drawn_by_their_weights(tmp_path):
    banks = []
    for name, value in (("a", 0.25), ("b", 0.5)):
        (tmp_path / name).mkdir()
        for stem in STEMS:
            soundfile.write(tmp_path / name / f"{stem}.wav", np.full((900, 2), value, np.float32), RATE)
        bank = SongBank.on_disk(tmp_path / f"bank-{name}", STEMS, RATE)
        bank.fill([tmp_path / name])
        banks.append(bank)
    excerpts = TrainingExcerpts(banks, DataPart(segment_s=0.5, source_weights=(1, 9)), PLAIN, seed=1, batch=1)
    assert np.mean([float(excerpts[number].max()) > 0.4 for number in range(60)]) == pytest.approx(0.9, abs=0.1)


def test_validation_excerpts_are_fixed_whole_and_take_turns(telling_songs):
    targets, places = validation_excerpts(telling_songs, segment_s=0.5, excerpts=6, seed=1)
    again, _ = validation_excerpts(telling_songs, segment_s=0.5, excerpts=6, seed=1)
    assert np.array_equal(targets, again)
    assert targets.shape == (6, 4, 2, 500)
    assert [_origin(example[0])[0] for example in targets] == [0, 1, 2, 0, 1, 2]
    assert all(len({_origin(target)[2] for target in example}) == 1 for example in targets)
    assert len(places) == 6
