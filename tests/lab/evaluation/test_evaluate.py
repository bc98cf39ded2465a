from __future__ import annotations

import json
import struct
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
import torch
from signals import RATE, noise, silence, song
from song_files import STEMS, write_song

from tsbs_daw import cli
from tsbs_daw.core.errors import DatasetError
from tsbs_daw.core.files import file_sha256
from tsbs_daw.lab.evaluation.evaluate import draw_rows, evaluate, levels_db, measure_song, stem_over_mixture, summarise
from tsbs_daw.lab.evaluation.songs import KnownSong, find_test_songs, read_song
from tsbs_daw.network import ModelConfig, TwoStageSeparator, checkpoint
from tsbs_daw.separation.separator import Separator

SMALL = ModelConfig(
    feature_dim=16, mask_blocks=1, map_blocks=1, n_fft=512, hop_length=256, band_widths=(16,) * 16 + (1,),
    d_state=4, expand=2, headdim=16, chunk_s=1.0, unit_level=True,
)  # fmt: skip


class Shares:
    """A separation with known results: each stem is a fixed share of the mixture, another for the mask stage."""

    model_hash = "0"

    def __init__(self, full: float, mask: float, stems: tuple[str, ...] = STEMS):
        self.stems = stems
        self.share = {"full": full, "mask": mask}
        self.network = SimpleNamespace(config=SimpleNamespace(sample_rate=RATE))

    def separate(self, audio, sample_rate, *, stage="full"):
        return dict.fromkeys(self.stems, self.share[stage] * audio)


def network() -> TwoStageSeparator:
    torch.manual_seed(0)
    return TwoStageSeparator(SMALL)


@pytest.fixture(scope="module")
def separator() -> Separator:
    return Separator(network(), torch.device("cpu"))


def _one_stem_song() -> KnownSong:
    targets = np.stack([noise(2 * RATE, seed=1), *[silence(2 * RATE)] * 3])
    return KnownSong("one", RATE, targets, targets.sum(axis=0))


def test_known_shares_have_known_scores():
    result = measure_song(_one_stem_song(), Shares(full=0.9, mask=0.5))
    drums = result["stems"]["drums"]
    assert drums["full"]["usdr_db"] == pytest.approx(20.0, abs=1e-2)
    assert drums["mask"]["usdr_db"] == pytest.approx(20 * np.log10(2), abs=1e-2)
    assert drums["mixture"]["usdr_db"] > 60
    assert result["residual_db"] == pytest.approx(20 * np.log10(4 * 0.9 - 1), abs=1e-2)
    assert result["stem_over_mixture_db"] == pytest.approx(20 * np.log10(0.9), abs=1e-2)


def test_a_stem_that_does_not_sound_is_not_measured():
    assert set(measure_song(_one_stem_song(), Shares(1, 1))["stems"]) == {"drums"}


def test_csdr_is_measured_for_every_kind():
    targets = np.stack([noise(2 * RATE, channels=1, seed=seed) for seed in range(2)])
    song = KnownSong("two", RATE, targets, targets.sum(axis=0))
    stems = measure_song(song, Shares(0.5, 0.5, stems=("a", "b")))["stems"]
    for scores in stems.values():
        assert scores["mixture"]["csdr_db"] == pytest.approx(0.0, abs=0.3)
        assert scores["oracle"]["csdr_db"] > scores["mixture"]["csdr_db"] + 1
        assert scores["full"]["csdr_db"] == scores["mask"]["csdr_db"]


def test_the_summary_tells_what_each_stage_gains():
    results = [measure_song(_one_stem_song(), Shares(0.9, 0.5)) for _ in range(2)]
    drums = summarise(results, STEMS)["stems"]["drums"]
    assert drums["songs"] == 2
    assert drums["map_stage_adds_db"] == pytest.approx(20 - 6.02, abs=0.02)
    assert drums["improvement_db"]["full"] == pytest.approx(drums["full"]["usdr_db"] - drums["mixture"]["usdr_db"])


def test_means_for_usdr_and_medians_for_csdr():
    def scored(usdr_db: float, csdr_db: float) -> dict:
        scores = {"usdr_db": usdr_db, "si_sdr_db": 0.0, "csdr_db": csdr_db}
        kinds = dict.fromkeys(("full", "mask", "mixture", "oracle"), scores)
        return {"seconds": 1.0, "separation_s": 0.5, "stem_over_mixture_db": None, "stems": {"bass": kinds}}

    summary = summarise([scored(0, 0), scored(1, 1), scored(5, 8)], STEMS)
    assert summary["stems"]["bass"]["full"] == {"usdr_db": 2.0, "si_sdr_db": 0.0, "csdr_db": 1.0}
    assert summary["times_real_time"] == 2.0


def test_a_stem_that_rises_above_the_mixture_is_found():
    mixture = noise(RATE)
    stems = np.stack([mixture, mixture])
    stems[1, :, 10_000:20_000] *= 2
    assert stem_over_mixture(stems, mixture, RATE) == pytest.approx(20 * np.log10(2), abs=1e-3)
    assert stem_over_mixture(stems, silence(RATE), RATE) == float("-inf")


def test_a_real_network_is_measured_from_files_to_json(tmp_path, separator):
    for number in range(2):
        write_song(tmp_path / f"song {number}", number)
    seen = []
    document = evaluate(tmp_path, separator, seconds=1.0, progress=seen.append)
    assert [song["name"] for song in seen] == ["song 0", "song 1"]
    assert json.loads(json.dumps(document, allow_nan=False)) == document
    for stem in STEMS:
        row = document["summary"]["stems"][stem]
        assert row["oracle"]["usdr_db"] > row["mixture"]["usdr_db"]
        assert {"usdr_db", "si_sdr_db", "csdr_db"} == set(row["full"]) == set(row["mixture"])
    assert document["silence"]["digital_db"] is None
    assert document["songs"][0]["seconds"] == 1.0


def test_the_test_folder_is_preferred_then_valid(tmp_path):
    write_song(tmp_path / "valid" / "b", 0)
    assert [path.name for path in find_test_songs(tmp_path, STEMS)] == ["b"]
    write_song(tmp_path / "test" / "a", 0)
    assert [path.name for path in find_test_songs(tmp_path, STEMS)] == ["a"]
    assert [path.name for path in find_test_songs(tmp_path / "valid", STEMS)] == ["b"]
    with pytest.raises(DatasetError, match="holds no song"):
        find_test_songs(tmp_path / "test" / "a", STEMS)


def test_songs_to_train_on_alone_are_not_measured_with(tmp_path):
    write_song(tmp_path / "train" / "a", 0)
    with pytest.raises(DatasetError, match=r"none to measure with; put some into .*test"):
        find_test_songs(tmp_path, STEMS)
    assert [path.name for path in find_test_songs(tmp_path / "train", STEMS)] == ["a"]


def test_the_excerpt_is_from_the_middle_and_the_mixture_from_its_file(tmp_path):
    folder = write_song(tmp_path / "song", 0, subtype="FLOAT")
    stems = song(2.0, seed=0)
    whole = read_song(folder, STEMS)
    assert np.array_equal(whole.targets[0], stems["drums"])
    assert np.allclose(whole.mixture, sum(stems.values()), atol=1e-6)
    soundfile.write(folder / "mixture.wav", 0.5 * whole.mixture.T, RATE, subtype="FLOAT")
    middle = read_song(folder, STEMS, seconds=1.0)
    assert np.array_equal(middle.targets, whole.targets[..., RATE // 2 : RATE // 2 + RATE])
    assert np.array_equal(middle.mixture, 0.5 * whole.mixture[..., RATE // 2 : RATE // 2 + RATE])


def test_a_broken_song_is_named(tmp_path):
    folder = write_song(tmp_path / "song", 0)
    soundfile.write(folder / "bass.wav", silence(100).T, RATE)
    with pytest.raises(DatasetError, match=r"song cannot be read: bass\.wav differs"):
        read_song(folder, STEMS)
    (folder / "bass.wav").unlink()
    with pytest.raises(DatasetError, match="lacks bass"):
        read_song(folder, STEMS)


def test_a_tone_is_drawn_where_it_is():
    from signals import tone

    levels = levels_db(tone(RATE / 2048 * 100, RATE))
    assert levels.shape[0] == 1025
    assert np.argmax(levels.mean(axis=1)) == 100
    assert levels.max() == pytest.approx(20 * np.log10(0.25), abs=0.1)
    assert levels_db(tone(440, 100)).shape[0] == 1025


def test_the_picture_is_a_png_with_a_row_for_each_stem(tmp_path):
    parts = (noise(RATE),) * 4
    draw_rows({"vocals": parts, "drums": parts}, RATE, "a title", tmp_path / "two.png")
    draw_rows({"vocals": parts}, RATE, "a title", tmp_path / "one.png")

    def size(name: str) -> tuple[int, int]:
        data = (tmp_path / name).read_bytes()
        assert data.startswith(b"\x89PNG")
        return struct.unpack(">II", data[16:24])

    assert size("two.png")[0] == size("one.png")[0]
    assert size("two.png")[1] > size("one.png")[1]


def test_the_command_prints_a_table_and_writes_the_files(tmp_path, capsys):
    write_song(tmp_path / "songs" / "song", 0)
    model = tmp_path / "small.safetensors"
    checkpoint.save(network(), model)
    arguments = ["--data", str(tmp_path / "songs"), "--model", str(model), "--seconds", "1"]
    files = ["--out", str(tmp_path / "r" / "result.json"), "--picture", str(tmp_path / "r" / "picture.png")]
    assert cli.run(cli.find("evaluate"), [*arguments, *files]) == 0
    printed = capsys.readouterr()
    assert "mask + map" in printed.out
    assert "ideal ratio mask" in printed.out
    assert "song: drums" in printed.err
    document = json.loads((tmp_path / "r" / "result.json").read_text(encoding="utf-8"))
    assert document["model_hash"] == file_sha256(model)
    assert document["schema"] == 1
    assert (tmp_path / "r" / "picture.png").stat().st_size > 10_000
    assert cli.run(cli.find("evaluate"), [*arguments, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["summary"].keys() == document["summary"].keys()
