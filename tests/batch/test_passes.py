"""A preset with passes through a batch and through a daemon: files, catalogue, page and session."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import packaged_networks as networks
import pytest
import rpp
from batch.page_crates import data_of
from cli.program import run, song_file
from harness.stage import DaemonProcess
from harness.studio import sound_of
from sessions.session_samples import read_tracks

from tsbs_daw.contracts.manifest import read_manifest
from tsbs_daw.core.config import DaemonOptions, Settings

PRESET = """
passes:
  - {stem: vocals, model: voices}
outputs:
  - {name: solo, from: lead, chain: [Invert]}
"""
PARTS = ["lead", "backing"]


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """With a network of six stems, one that takes a voice apart, and a preset of both."""
    home, values = tmp_path / "home", {**networks.TINY["bs-roformer"], "stems": PARTS}
    (home / "models").mkdir(parents=True)
    networks.saved(networks.build("htdemucs", networks.TINY["htdemucs"]), home / "models" / "six.safetensors")
    networks.saved(networks.build("bs-roformer", values, seed=1), home / "models" / "voices.safetensors")
    (home / "presets").mkdir()
    (home / "presets" / "duet.yaml").write_text(PRESET, encoding="utf-8")
    return home


def check_sums(folder: Path) -> None:
    manifest = read_manifest(folder)
    of = {entry.name: sound_of(folder / entry.file) for entry in manifest.stems}
    np.testing.assert_allclose(of["lead"] + of["backing"], of["vocals"], rtol=0, atol=1e-5)
    np.testing.assert_allclose(of["solo"], -of["lead"], rtol=0, atol=1e-6)
    assert [entry.folders for entry in manifest.stems if entry.name in ("vocals", *PARTS)] == [("vocals",)] * 3


def test_a_batch_and_a_daemon_send_stems_through_other_models(home: Path, tmp_path: Path):
    songs = [song_file(tmp_path / "crate" / f"{name}.wav", 1.0, seed=seed) for seed, name in enumerate(("a", "b"))]
    words = ("batch", tmp_path / "crate", "--out", tmp_path / "out", "--model", "six", "--preset", "duet")
    done = run(home, *words)
    assert done.returncode == 0, done.stderr
    catalogue = json.loads((tmp_path / "out" / "catalogue.json").read_text(encoding="utf-8"))
    names = ["solo", "drums", "bass", "other", "vocals", *PARTS, "guitar", "piano"]
    for song in catalogue["songs"]:
        assert [file["name"] for file in song["files"]] == names
        check_sums(tmp_path / "out" / song["folder"])
    page = data_of((tmp_path / "out" / "catalogue.html").read_text(encoding="utf-8"))
    assert all("lead" in json.dumps(song) for song in page["songs"])
    (session,) = (tmp_path / "out").glob("*.RPP")
    tracks = read_tracks(rpp.loads(session.read_text(encoding="utf-8")))
    (lead,) = (track for track in tracks if track.name == "lead")
    assert lead.folders == ("vocals",) and len(lead.items) == len(songs)
    assert [track.name for track in tracks if track.folders == ("vocals",)] == ["solo", "vocals", *PARTS]

    # A daemon delivers one of them once more, out of the cache.
    settings = Settings(home, home / "cache", home / "models", "cpu")
    sent = run(home, "submit", songs[0], "--out", tmp_path / "sent", "--model", "six", "--preset", "duet")
    assert sent.returncode == 0, sent.stderr
    with DaemonProcess(settings, options=DaemonOptions(), once=True) as daemon:
        assert daemon.wait() == 0, daemon.log.read_text()
    check_sums(tmp_path / "sent" / "a")
    assert len(list((home / "cache" / "stems").iterdir())) == 2 * len(songs)
    assert read_manifest(tmp_path / "sent" / "a").timings_s.get("separate", 0.0) == 0.0
