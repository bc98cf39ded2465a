"""One gain for a whole song: to a loudness, never beyond the true peak that is allowed."""

from __future__ import annotations

import pytest

from tsbs_daw.audio.dsp import Levels
from tsbs_daw.pipeline.render import level_fields, shared_gain
from tsbs_daw.presets.delivery import PLAIN, DeliveryOptions


def levels(true_peak_db: float | None = -6.0, loudness_lufs: float | None = -18.0) -> Levels:
    return Levels(true_peak_db, true_peak_db, true_peak_db and true_peak_db - 12, loudness_lufs, 44100)


def test_without_a_target_the_level_stays():
    assert shared_gain(PLAIN, levels(), [levels(), levels(3.0)]) == (0.0, ())
    assert shared_gain(DeliveryOptions(format="wav24"), levels(), [levels(-0.1)]) == (0.0, ())


def test_the_mixture_comes_to_its_target():
    assert shared_gain(DeliveryOptions(loudness_lufs=-14.0), levels(), [levels()]) == (4.0, ())
    assert shared_gain(DeliveryOptions(loudness_lufs=-23.0), levels(), [levels()]) == (-5.0, ())


@pytest.mark.parametrize("loudest", ["a file", "the mixture"])
def test_no_true_peak_passes_the_ceiling_and_what_is_missing_is_said(loudest: str):
    mixture, file = (levels(-2.0), levels()) if loudest == "the mixture" else (levels(), levels(-2.0))
    gain_db, (remark,) = shared_gain(DeliveryOptions(loudness_lufs=-14.0), mixture, [levels(-30.0), file])
    assert gain_db == pytest.approx(1.0) and "missed by 3.0 dB" in remark


def test_what_is_missed_by_less_than_is_shown_is_not_told():
    gain_db, remarks = shared_gain(DeliveryOptions(loudness_lufs=-12.98), levels(), [levels()])
    assert (gain_db, remarks) == (5.0, ())


def test_a_target_takes_peaks_down_even_where_it_is_reached():
    gain_db, remarks = shared_gain(DeliveryOptions(loudness_lufs=-18.0), levels(), [levels(1.0)])
    assert gain_db == pytest.approx(-2.0) and "missed by 2.0 dB" in remarks[0]


def test_a_format_that_cannot_hold_a_peak_gets_all_files_lower():
    gain_db, (remark,) = shared_gain(DeliveryOptions(format="flac16"), levels(), [levels(0.5)])
    assert gain_db == pytest.approx(-1.5) and "1.5 dB lower" in remark


def test_silence_and_what_is_too_short_for_a_loudness_stay():
    asked = DeliveryOptions(loudness_lufs=-14.0, format="mp3")
    assert shared_gain(asked, levels(None, None), [levels(None, None)]) == (0.0, ())
    gain_db, (remark,) = shared_gain(asked, levels(-20.0, None), [levels(-20.0, None)])
    assert gain_db == 0.0 and "cannot be reached" in remark


def test_a_gain_shifts_every_level_and_leaves_silence_alone():
    names = ("sample_peak_db", "true_peak_db", "rms_db", "loudness_lufs")
    assert level_fields(levels(), 2.0) == dict(zip(names, (-4.0, -4.0, -16.0, -16.0), strict=True))
    assert level_fields(levels(None, None), 2.0) == level_fields(levels(None, None))
