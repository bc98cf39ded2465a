"""Audacity itself: a selection is exported, separated by the real daemon, and its stems are put where it was."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import signals
import soundfile
from audacity.stage import Audacity, missing
from cli.program import environment, run
from programs import process
from timeouts import PATIENCE_S

pytestmark = pytest.mark.skipif(bool(missing()), reason=missing())

RATE = 48_000
START_S, END_S = 0.5, 2.5


def separated(home: Path, file: Path, out: Path) -> list[dict]:
    """What the daemon makes of a file. Returns: the stems of its result"""
    asked = run(home, "submit", file, "--out", out, "--first", "--json")
    assert asked.returncode == 0, asked.stderr
    answer = home / "spool" / "done" / json.loads(asked.stdout)["id"] / "result.json"
    end = time.monotonic() + PATIENCE_S
    while not answer.exists():
        assert time.monotonic() < end, "the daemon did not finish"
        time.sleep(0.1)
    result = json.loads(answer.read_text(encoding="utf-8"))
    assert result["state"] == "done", result["error"]
    return result["stems"]


def exported(audacity: Audacity, track: int, file: Path) -> np.ndarray:
    """A track's audio between the two times, (channels, samples)."""
    audacity.do(f"SelectTime: Start={START_S} End={END_S} RelativeTo=ProjectStart")
    audacity.do(f"SelectTracks: Track={track} TrackCount=1 Mode=Set")
    audacity.do(f'Export2: Filename="{file}" NumChannels=2')
    assert soundfile.info(str(file)).subtype == "FLOAT"
    return soundfile.read(file, dtype="float32", always_2d=True)[0].T


def test_a_selection_comes_back_as_tracks_at_its_place_with_the_stems_audio(tmp_path: Path):
    home = tmp_path / "home"
    mixture = signals.mixture(signals.song(4.0, RATE))
    signals.write_file(tmp_path / "mix.wav", mixture, RATE)
    audacity = Audacity(tmp_path / "audacity")
    log = (tmp_path / "daemon.log").open("ab")
    daemon = process([sys.executable, "-m", "tsbs_daw", "watch"], environment(home), stdout=log, stderr=log)
    with log, daemon, audacity.open():
        audacity.do(f'Import2: Filename="{tmp_path / "mix.wav"}"')
        selection = exported(audacity, 0, tmp_path / "selection.wav")
        np.testing.assert_array_equal(selection, mixture[:, round(START_S * RATE) : round(END_S * RATE)])
        stems = separated(home, tmp_path / "selection.wav", tmp_path / "stems")
        for number, stem in enumerate(stems, 1):
            audacity.do(f'Import2: Filename="{stem["path"]}"')
            audacity.do(f"SelectTracks: Track={number} TrackCount=1 Mode=Set")
            audacity.do(f"SetClip: At=0 Start={START_S}")
            audacity.do(f'SetTrackStatus: Track={number} Name="{stem["name"]}"')
        clips = [(clip["track"], clip["start"], clip["end"]) for clip in audacity.clips()]
        heard = [exported(audacity, number, tmp_path / f"{number}.wav") for number in range(1, len(stems) + 1)]
        tracks = json.loads(audacity.do("GetInfo: Type=Tracks Format=JSON"))
        audacity.do(f'SaveProject2: Filename="{tmp_path / "song.aup3"}"')
    assert len(stems) == 4 and [track["name"] for track in tracks] == ["mix", *(stem["name"] for stem in stems)]
    assert {clip[1:] for clip in clips if clip[0] > 0} == {(START_S, END_S)}
    for stem, audio in zip(stems, heard, strict=True):
        np.testing.assert_array_equal(audio, soundfile.read(stem["path"], dtype="float32")[0].T)
