from __future__ import annotations

import base64
import os

import numpy as np
import pytest
from signals import RATE, impulses, noise, silence, tone, write_file

from tsbs_daw.batch.waveform import CACHE_FOLDER, PARTS, forget_all_but, inside, measure_waveform, waveforms


def levels(picture) -> np.ndarray:
    """(PARTS, 2): highest and RMS, as amplitudes."""
    found = np.frombuffer(base64.b64decode(picture.levels), np.uint8).reshape(PARTS, 2)
    return (found / 255.0) ** 2


def in_blocks(audio: np.ndarray, size: int):
    return (audio[:, start : start + size] for start in range(0, audio.shape[1], size))


def test_a_tone_has_its_amplitude_as_peak_and_its_rms_everywhere():
    found = levels(measure_waveform([tone(1000.0, 10 * RATE, amplitude=0.5)], RATE))
    assert found[:, 0] == pytest.approx(0.5, abs=0.005)
    assert found[:, 1] == pytest.approx(0.5 / np.sqrt(2), abs=0.005)


def test_silence_is_zero_and_lasts_as_long_as_it_does():
    picture = measure_waveform([silence(3 * RATE)], RATE)
    assert not levels(picture).any()
    assert picture.duration_s == 3.0


@pytest.mark.parametrize("samples", [1, 63, 64, 65, 5_000, 600 * 64, 8192 * 64 - 1, 8192 * 64 + 65, 1_500_001])
def test_an_impulse_is_where_it_belongs_in_a_sound_of_any_length(samples):
    at = samples * 2 // 3
    audio = impulses(samples, [at], channels=1)
    found = levels(measure_waveform(in_blocks(audio, 65536), RATE))
    place = int(np.argmax(found[:, 0]))
    assert found[place, 0] == pytest.approx(0.8, abs=0.01)
    cell = 64 * 2 ** max(0, int(np.ceil(np.log2(samples / 64 / 4096))))
    assert abs((place + 0.5) / PARTS - (at + 0.5) / samples) <= cell / samples + 1 / PARTS


@pytest.mark.parametrize("size", [1_000, 4_096, 65_536, 999_999])
def test_it_does_not_matter_how_a_sound_is_cut_into_blocks(size):
    audio = noise(1_234_567, amplitude=0.3)
    expected = levels(measure_waveform([audio], RATE))
    assert levels(measure_waveform(in_blocks(audio, size), RATE)) == pytest.approx(expected, abs=1 / 128)


def test_what_exceeds_full_scale_is_drawn_at_full_scale():
    assert levels(measure_waveform([tone(100.0, RATE, amplitude=3.0)], RATE)).max() == 1.0


def test_a_sound_of_no_samples_has_a_problem_and_no_picture():
    picture = measure_waveform([], RATE)
    assert (picture.levels, bool(picture.problem)) == ("", True)


@pytest.mark.parametrize("path", ["", "/etc/passwd", "../x.wav", "a/../../x.wav", "a\0b"])
def test_no_path_leads_out_of_the_folder(tmp_path, path):
    assert inside(tmp_path, path) is None


def test_a_file_is_read_once_and_again_when_it_changes(tmp_path):
    path = write_file(tmp_path / "a.wav", tone(440.0, RATE, amplitude=0.5))
    stat = path.stat()
    first = waveforms(tmp_path, "song", ["a.wav"])
    write_file(path, tone(440.0, RATE, amplitude=0.1))
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert waveforms(tmp_path, "song", ["a.wav"]) == first
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns + 1_000_000_000))
    assert levels(waveforms(tmp_path, "song", ["a.wav"])["a.wav"])[:, 0] == pytest.approx(0.1, abs=0.005)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"format": 1, "parts": 600, "files": {"a.wav": 3}}', '{"format": 0}'])
def test_a_memory_that_nobody_understands_is_made_anew(tmp_path, text):
    write_file(tmp_path / "a.wav", tone(440.0, RATE))
    first = waveforms(tmp_path, "song", ["a.wav"])
    (cache,) = (tmp_path / CACHE_FOLDER).iterdir()
    cache.write_text(text, encoding="utf-8")
    assert waveforms(tmp_path, "song", ["a.wav"]) == first


def test_missing_and_damaged_files_are_told_apart(tmp_path):
    write_file(tmp_path / "cut.wav", tone(440.0, RATE))
    (tmp_path / "cut.wav").write_bytes((tmp_path / "cut.wav").read_bytes()[:50_000])
    found = waveforms(tmp_path, "song", ["cut.wav", "gone.wav", "../out.wav"])
    assert "cut short" in found["cut.wav"].problem
    assert found["gone.wav"].problem == found["../out.wav"].problem == "the file is missing"
    assert not (tmp_path / CACHE_FOLDER).exists()  # what could not be drawn is tried again


def test_what_is_known_of_songs_that_are_gone_is_forgotten(tmp_path):
    write_file(tmp_path / "a.wav", tone(440.0, RATE))
    for group in ("one", "two"):
        waveforms(tmp_path, group, ["a.wav"])
    forget_all_but(tmp_path, ["two"])
    assert len(list((tmp_path / CACHE_FOLDER).iterdir())) == 1
