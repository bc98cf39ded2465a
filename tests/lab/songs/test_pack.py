"""A pack cut out of clones: from the pinned commit, with the licence stated, playable afterwards."""

from __future__ import annotations

import json
import subprocess
from dataclasses import replace

import numpy as np
import pytest
import signals
import soundfile as sf
import yaml
from lab.songs.pack import RATE, burst, note_hz

from tsbs_daw.core.errors import DatasetError, UsageError
from tsbs_daw.lab.songs import pack
from tsbs_daw.lab.songs.material import Source, open_material, read_sources

SFZ = """
<group> key=60 // middle c
 lovel=0 hivel=63
<region> sample=drums/soft one.wav
<group> lovel=64 hivel=127
<region>
 key=60 sample=drums/hard.wav
"""
RECIPES = yaml.safe_load(
    r"""
bass:
  repository: bass-repository
  stated_in: LICENSE
  words: CC0 1.0 Universal
  stem: bass
  kind: bass-note
  octave: -1
  seconds: 1.0
  high_pass_hz: 20
  rules:
    - files: 'notes/(?P<note>[a-g]b?\d)_(?P<layer>p|f)_rr(?P<take>\d)\.wav'
      articulation: finger
      layers: {p: 0.4, f: 1.0}
      takes: {p: [1], f: [1, 2]}
kit:
  repository: bass-repository
  stated_in: LICENSE
  words: CC0 1.0 Universal
  stem: drums
  seconds: 2.0
  rules:
    - {files: 'drums/.*\.wav', kind: snare, articulation: snare, sfz: kit.sfz}
"""
)


def _git(folder, *arguments):
    command = ["git", "-C", str(folder), "-c", "user.name=t", "-c", "user.email=t@t", *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture(scope="module")
def clone(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clones") / "bass-repository"
    (folder / "notes").mkdir(parents=True)
    (folder / "drums").mkdir()
    (folder / "LICENSE").write_text("CC0 1.0\n  Universal")
    (folder / "kit.sfz").write_text(SFZ)
    for name in ("c3_p_rr1", "c3_p_rr2", "c3_f_rr1", "c3_f_rr2", "eb3_f_rr1"):
        tone = signals.tone(note_hz(36), 2 * RATE, channels=2, amplitude=0.9)
        sf.write(folder / "notes" / f"{name}.wav", np.pad(tone, ((0, 0), (RATE // 2, 0))).T, RATE)
    for number, name in enumerate(("soft one", "hard", "unmapped")):
        sf.write(folder / "drums" / f"{name}.wav", burst(1.0, 0.1, number).T, RATE)
    _git(folder, "init", "-q")
    _git(folder, "add", "-A")
    _git(folder, "commit", "-qm", "samples")
    return folder


@pytest.fixture(scope="module")
def sources(clone):
    commit = _git(clone, "rev-parse", "HEAD")
    (clone / "notes" / "c3_p_rr1.wav").unlink()  # what is checked out does not count
    return {name: Source(name, name, "someone", "here", commit, "CC0 1.0") for name in ("bass", "kit")}


@pytest.fixture(scope="module")
def made(clone, sources, tmp_path_factory):
    out = tmp_path_factory.mktemp("pack")
    lines: list[str] = []
    assert pack.make_pack(out, [clone], recipes=RECIPES, sources=sources, report=lines.append) == ["bass", "kit"]
    assert lines[0].startswith("bass: 4 recordings")
    return out


def test_a_pack_has_what_its_rules_take(made):
    rows = json.loads((made / "index.json").read_text())
    basses = {(row["original"], row["note"], row["velocity"]) for row in rows if row["stem"] == "bass"}
    assert basses == {
        ("notes/c3_p_rr1.wav", 36, 0.4),
        ("notes/c3_f_rr1.wav", 36, 1.0),
        ("notes/c3_f_rr2.wav", 36, 1.0),
        ("notes/eb3_f_rr1.wav", 39, 1.0),
    }
    drums = {row["original"]: row["velocity"] for row in rows if row["stem"] == "drums"}
    assert drums == {"drums/soft one.wav": 0.25, "drums/hard.wav": pytest.approx(0.75, abs=0.01)}


def test_recordings_are_trimmed_mono_and_below_full_scale(made):
    material = open_material(made)
    for recording in material.select("bass", "bass-note"):
        sound = material.audio(recording)
        assert sound.shape[0] == 1
        assert sound.shape[1] == RATE
        assert np.abs(sound[:, : RATE // 100]).max() > 0.05
        assert np.abs(sound[:, -20:]).max() < 0.01
        assert 0.5 < np.abs(sound).max() < 1.0


def test_a_pack_describes_its_sources_and_notices_a_change(made, clone, sources, tmp_path):
    described = read_sources(made / "sources.yaml")
    assert described["bass"].files == 4
    assert described["bass"].commit == sources["bass"].commit
    assert pack.make_pack(made, [clone], recipes=RECIPES, sources=sources) == []
    copy = tmp_path / "copy"
    copy.mkdir()
    for path in made.rglob("*.*"):
        target = copy / path.relative_to(made)
        target.parent.mkdir(exist_ok=True)
        target.write_bytes(path.read_bytes())
    victim = next((copy / "bass").iterdir())
    victim.write_bytes(victim.read_bytes()[:-1])
    with pytest.raises(UsageError, match=r"source bass in .* were changed"):
        open_material(copy)


def test_a_clone_without_the_licence_or_the_commit_is_refused(clone, sources, tmp_path):
    other = {**RECIPES, "bass": {**RECIPES["bass"], "words": "Attribution 4.0"}}
    with pytest.raises(DatasetError, match=r"does not say 'Attribution 4\.0'"):
        pack.make_pack(tmp_path / "a", [clone], recipes=other, sources=sources)
    elsewhere = {name: replace(source, commit="0" * 40) for name, source in sources.items()}
    with pytest.raises(DatasetError, match="clone the whole repository"):
        pack.make_pack(tmp_path / "b", [clone], recipes=RECIPES, sources=elsewhere)


def test_a_folder_that_no_recipe_knows_is_refused(tmp_path):
    with pytest.raises(UsageError, match=r"karoryfer\.growlybass"):
        pack.make_pack(tmp_path / "out", [tmp_path])
    assert not (tmp_path / "out").exists()


def test_every_recipe_has_a_described_source_and_sound_rules():
    recipes = yaml.safe_load(pack.files(pack.__package__).joinpath("recipes.yaml").read_text())
    described = read_sources()
    for name, recipe in recipes.items():
        assert described[name].address.rstrip("/").split(" ")[0].endswith(recipe["repository"]), name
        assert len(described[name].commit) == 40, name
        for rule in recipe["rules"]:
            whole = {**recipe, **rule}
            assert {"stem", "kind", "seconds"} <= set(whole), name
            assert pack.re.compile(whole["files"]).groupindex.keys() <= {"note", "key", "layer", "take", "articulation"}


@pytest.mark.parametrize(("name", "note"), [("c4", 60), ("eb3", 51), ("F#2", 42), ("bb0", 22), ("C-1", 0)])
def test_names_of_notes(name, note):
    assert pack.midi_note(name) == note
