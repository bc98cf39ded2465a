from __future__ import annotations

import json

import numpy as np
import pytest
import soundfile
import torch
from song_files import STEMS, write_song

from tsbs_daw.core.errors import DatasetError
from tsbs_daw.lab.evaluation.songs import finished_songs
from tsbs_daw.lab.training.bank import DeviceStore, Follower, SongBank

RATE = 44100


@pytest.fixture
def folders(tmp_path):
    return [write_song(tmp_path / "songs" / str(number), number, 1.0) for number in range(2)]


def _on_disk(tmp_path) -> SongBank:
    return SongBank.on_disk(tmp_path / "bank", STEMS, RATE)


def test_a_bank_holds_the_very_samples_of_its_songs(folders, tmp_path):
    bank = _on_disk(tmp_path)
    assert not bank.fill(folders)
    for song, folder in zip(bank.songs, folders, strict=True):
        found = bank.excerpt(song, 1000, 500)
        for index, stem in enumerate(STEMS):
            audio, _ = soundfile.read(folder / f"{stem}.wav", dtype="float32")
            assert np.array_equal(found[index], audio[1000:1500].T)


def test_songs_are_decoded_once(folders, tmp_path, monkeypatch):
    _on_disk(tmp_path).fill(folders)
    monkeypatch.setattr(soundfile, "SoundFile", None)
    again = _on_disk(tmp_path)
    assert not again.fill(folders)
    assert [song.name for song in again.songs] == ["0", "1"]


def test_a_song_that_changed_is_read_again_and_one_that_is_gone_is_left_out(folders, tmp_path):
    _on_disk(tmp_path).fill(folders)
    soundfile.write(folders[1] / "bass.wav", np.full((RATE, 2), 0.25), RATE)
    again = _on_disk(tmp_path)
    again.fill(folders[1:])
    (song,) = again.songs
    assert song.name == "1"
    assert np.allclose(again.excerpt(song, 0, 10)[STEMS.index("bass")], 0.25)


@pytest.mark.parametrize("damage", ["flip", "cut", "index", "stems"])
def test_a_damaged_bank_is_named_in_one_sentence(folders, tmp_path, damage):
    _on_disk(tmp_path).fill(folders)
    samples, index = tmp_path / "bank.pcm", tmp_path / "bank.json"
    data = bytearray(samples.read_bytes())
    if damage == "flip":
        data[len(data) // 2] ^= 1
        samples.write_bytes(data)
    elif damage == "cut":
        samples.write_bytes(data[:-1000])
    elif damage == "index":
        index.write_text("{", encoding="utf-8")
    else:
        document = json.loads(index.read_text(encoding="utf-8"))
        index.write_text(json.dumps({**document, "stems": ["one"]}), encoding="utf-8")
    with pytest.raises(DatasetError, match=r"bank\.json.*delete") as raised:
        _on_disk(tmp_path)
    assert "\n" not in str(raised.value)


def test_what_a_crash_left_behind_the_last_whole_song_is_written_over(folders, tmp_path):
    _on_disk(tmp_path).fill(folders[:1])
    with (tmp_path / "bank.pcm").open("ab") as file:
        file.write(b"\1" * 16 * 1000)
    bank = _on_disk(tmp_path)
    bank.fill(folders)
    assert bank.songs[1].first == bank.songs[0].end
    assert len(_on_disk(tmp_path).songs) == 2


def test_a_full_device_leaves_the_song_out(folders):
    bank = SongBank(DeviceStore(len(STEMS), torch.device("cpu"), RATE + 10), STEMS, RATE)
    assert not bank.fill(folders)
    assert [song.name for song in bank.songs] == ["0"]


def test_floats_above_full_scale_scale_their_song_as_a_whole(folders, tmp_path):
    for stem, value in zip(STEMS, (2.0, 1.0, 0.5, 0.0), strict=True):
        soundfile.write(folders[0] / f"{stem}.wav", np.full((RATE, 2), value), RATE, subtype="FLOAT")
    bank = _on_disk(tmp_path)
    bank.fill(folders[:1])
    found = bank.excerpt(bank.songs[0], 0, 5)[:, 0, 0]
    assert found == pytest.approx([1.0, 0.5, 0.25, 0.0], abs=1e-4)
    assert bank.songs[0].levels_db[1][0] == pytest.approx(-6.02, abs=0.01)


def test_a_follower_takes_in_what_is_finished_and_names_what_is_broken_once(folders, tmp_path, caplog):
    for folder in folders:
        (folder / "song.json").write_text("{}")
    bank = _on_disk(tmp_path)
    bank.fill(folders)
    songs = tmp_path / "songs"
    follower = Follower(bank, lambda: finished_songs(sorted(songs.iterdir())), every_s=3600)
    write_song(songs / "2", 2, 1.0)
    follower.look()
    assert len(bank.songs) == 2  # its song.json is not there yet
    (songs / "2" / "song.json").write_text("{}")
    write_song(songs / "3", 3, 1.0)
    (songs / "3" / "song.json").write_text("{}")
    (songs / "3" / "bass.wav").write_bytes(b"RIFF")
    follower.look()
    follower.look()
    follower.close()
    assert [song.name for song in bank.songs] == ["0", "1", "2"]
    assert sum("3: bass.wav" in record.getMessage() for record in caplog.records) == 1


@pytest.mark.parametrize("text", ["CUDA out of memory", "HIP error: HIPBLAS_STATUS_ALLOC_FAILED", "no kernel image"])
def test_a_card_that_is_full_gets_a_smaller_store(monkeypatch, text):
    asked = []

    def make(self, stems, device, frames):
        asked.append(frames)
        if len(asked) < 3:
            raise RuntimeError(text)

    monkeypatch.setattr(DeviceStore, "__init__", make)
    if text == "no kernel image":  # which less memory does not change
        with pytest.raises(RuntimeError, match=text):
            DeviceStore.of_size(4, torch.device("cpu"), 1.0)
        assert len(asked) == 1
    else:
        DeviceStore.of_size(4, torch.device("cpu"), 1.0)
        assert asked == [62_500_000, 31_250_000, 15_625_000]
