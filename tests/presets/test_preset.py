"""Presets from files: what they say, what is refused, how they are found."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from effects.preset_files import check_refused, written

from tsbs_daw.core.config import Settings
from tsbs_daw.core.errors import PresetError
from tsbs_daw.core.filenames import safe_name
from tsbs_daw.effects.table import Effect
from tsbs_daw.presets.delivery import Pass
from tsbs_daw.presets.preset import list_presets, load_preset, name_problem, preset_files, read_preset

GOOD = """\
description: Everything that a preset can have.
outputs:
  - name: instrumental
    from: [drums, bass, {other: -2 dB}]
    chain:
      - HighpassFilter: {cutoff_frequency_hz: 30}
      - Invert
      - Reverb:
      - BrickwallLimiter: {true_peak: true}
      - LadderFilter: {mode: HPF24}
      - Mix:
          - Gain: {gain_db: -3}
          - Chain:
              - Compressor: {threshold_db: -30, ratio: 8}
              - Gain: {gain_db: 1e0}
      - VST3: {path: Thing.vst3, plugin: Two, parameters: {mode: 12 dB/oct, mix: 0.5, "on": true, "n": "5"}}
    color: "#4CAF50"
  - name: vocals up
    from: vocals
"""


def test_everything_is_read(tmp_path: Path):
    path = written(tmp_path, GOOD)
    preset = load_preset(path)
    assert (preset.name, preset.description) == ("mine", "Everything that a preset can have.")
    assert preset.path == path and preset.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    first, second = preset.outputs
    assert (first.name, first.sources, first.gain_db) == ("instrumental", ("drums", "bass", "other"), (0.0, 0.0, -2.0))
    assert first.color == "#4caf50" and first.uses_plugin
    assert first.chain[:5] == (
        Effect("HighpassFilter", {"cutoff_frequency_hz": 30.0}),
        Effect("Invert"),
        Effect("Reverb"),
        Effect("BrickwallLimiter", {"true_peak": True}),
        Effect("LadderFilter", {"mode": "HPF24"}),
    )
    inner = (Effect("Compressor", {"threshold_db": -30.0, "ratio": 8.0}), Effect("Gain", {"gain_db": 1.0}))
    assert first.chain[5] == Effect(
        "Mix", children=(Effect("Gain", {"gain_db": -3.0}), Effect("Chain", children=inner))
    )
    plugin = first.chain[6]
    assert (plugin.path, plugin.plugin) == ("Thing.vst3", "Two")
    assert plugin.parameters == {"mode": "12 dB/oct", "mix": 0.5, "on": True, "n": "5"}
    assert (second.sources, second.gain_db, second.chain) == (("vocals",), (0.0,), ())
    assert second.color.startswith("#") and second.color != first.color and not second.uses_plugin


@pytest.mark.parametrize(
    ("old", "new", "place", "what"),
    [
        ("name: inst", "nane: inst", "nane", "has no 'nane'; did you mean 'name'?"),
        ("color", "colour", "colour", "did you mean 'color'?"),
        ("outputs:", "output:", "output:", "did you mean 'outputs'?"),
        ("Invert", "Inverted", "Inverted", "no effect 'Inverted'; did you mean 'Invert'?"),
        ("cutoff_frequency_hz", "cutoff_hz", "cutoff_hz", "did you mean 'cutoff_frequency_hz'?"),
        ("_hz: 30", "_hz: .nan", ".nan", "finite number"),
        ("_hz: 30", "_hz: -30", "-30", "must be from 1 to 192000, not -30"),
        ("ratio: 8", 'ratio: "8"', '"8"', "number without quotes"),
        ("ratio: 8", "ratio: {}", "{}", "must be text"),
        ("true_peak: true", "true_peak: yes", "yes", "must be true or false"),
        ("mode: HPF24", "mode: HPF48", "HPF48", "not 'HPF48'; did you mean 'HPF24'?"),
        ("-2 dB", ".inf", ".inf", "finite number"),
        ("-2 dB", "-2 Hz", "-2 Hz", "must be a number, not '-2 Hz'"),
        ("-2 dB", "60", "60", "from -100 to 36 dB"),
        ("-2 dB}", "-2 dB, vocals: 1}", "{other", "one stem per entry"),
        ("{other: -2 dB}", "drums", "drums]", "named twice"),
        ("[drums, bass, {other: -2 dB}]", "[]", "[]", "is empty; name at least one stem"),
        ("[drums, bass, {other: -2 dB}]", "[1/2]", "1/2", "is not a valid stem name"),
        ("from: vocals", "color: red", "name: vocals up", "needs `from:`"),
        ('"#4CAF50"', "#4caf50", " #4caf50", "color is empty; give it a value (a value with # needs quotes)"),
        ('"#4CAF50"', '"green"', '"green"', 'like "#4caf50"'),
        ("vocals up", "INSTRUMENTAL", "INSTRUMENTAL", "two outputs are named"),
        ("vocals up", "a/b", "a/b", "has the character '/'"),
        ("vocals up", "aux", "aux", "a reserved name on Windows"),
        ("vocals up", '"x "', '"x "', "begins or ends with a space"),
        ("vocals up", "x" * 65, "xxx", "longer than 64"),
        ("outputs:", "description: x\noutputs:", "description: x", "'description' is given twice"),
        ("gain_db: -3", "gain_db: -3, gain_db: -4", "gain_db: -4", "'gain_db' is given twice"),
        ("mix: 0.5", "mix: .nan", ".nan", "finite number"),
        ("path: Thing.vst3, ", "", "VST3", "VST3 needs `path:`"),
        ("- Invert", "- Mix", "Mix\n", "Mix has no effects"),
        ("- Invert", "- Convolution", "Convolution", "needs 'impulse_response_filename'"),
        ("- Invert", "- Gain:\n        gain_db: 3", "Gain:\n", "indent 'gain_db' deeper than 'Gain'"),
        ("- Invert", "- {Invert: , Gain: }", "{Invert", "each effect of a chain needs its own `- `"),
        ("- Invert", "- ? [a]\n        : 1", "[a]", "a key that is not a name"),
        ("    chain:\n", "    chain: {a: 1}\n    x:\n", "x:", "an output has no 'x'"),
        ("  - name: vocals up\n    from: vocals", "  - name: a\n    from: vocals\n    chain: 3", "3", "must be a list"),
    ],
)
def test_what_is_wrong_is_named_with_its_place(tmp_path: Path, old: str, new: str, place: str, what: str):
    assert old in GOOD
    check_refused(tmp_path, GOOD.replace(old, new, 1), place, what)


def test_a_preset_without_outputs_key_is_refused(tmp_path: Path):
    with pytest.raises(PresetError, match="no `outputs:`"):
        load_preset(written(tmp_path, "description: nothing"))


def test_an_empty_chain_is_no_chain(tmp_path: Path):
    text = "outputs:\n  - name: a\n    from: vocals\n    chain:\n      # - Invert\n"
    assert load_preset(written(tmp_path, text)).outputs[0].chain == ()


def test_paths_in_a_preset_count_from_its_folder(tmp_path: Path):
    text = (
        "outputs:\n  - name: a\n    from: vocals\n    chain:\n"
        "      - Convolution: {impulse_response_filename: rooms/hall.wav}\n"
        "      - VST3: {path: ./here.vst3}\n      - VST3: {path: plugs/there.vst3}\n      - VST3: {path: Known.vst3}\n"
    )
    response, here, there, known = load_preset(written(tmp_path, text)).outputs[0].chain
    assert response.parameters["impulse_response_filename"] == str(tmp_path / "rooms" / "hall.wav")
    assert there.path == str(tmp_path / "plugs" / "there.vst3")
    assert known.path == "Known.vst3"
    assert here.path in (str(tmp_path / "here.vst3"), "here.vst3")


def test_the_hash_covers_the_impulse_responses(tmp_path: Path):
    path = written(
        tmp_path,
        "outputs:\n- {name: a, from: vocals, chain: [Convolution: {impulse_response_filename: hall.wav}]}",
    )
    hashes = [read_preset(path).sha256]
    for content in (b"one", b"two"):
        (tmp_path / "hall.wav").write_bytes(content)
        hashes.append(read_preset(path).sha256)
    assert len(set(hashes)) == 3


def test_a_stem_that_the_model_does_not_give_is_reported():
    preset = load_preset("karaoke")
    preset.check_stems(("drums", "bass", "other", "vocals"))
    with pytest.raises(PresetError, match="'karaoke' uses the stem 'drums', but the model provides vocals, rest"):
        preset.check_stems(("vocals", "rest"))


def test_none_is_a_preset_without_outputs():
    assert load_preset("none").outputs == ()


def test_an_unknown_name_names_the_closest(tmp_path: Path):
    with pytest.raises(PresetError, match=r"There is no preset 'karoke'; did you mean 'karaoke'\?"):
        load_preset("karoke", own=tmp_path)
    with pytest.raises(PresetError, match="`tsbs-daw presets list` lists all presets"):
        load_preset("zzz", own=tmp_path)


def test_the_users_own_preset_hides_a_shipped_one(tmp_path: Path):
    written(tmp_path, "outputs: []\ndescription: mine", "karaoke.yaml")
    written(tmp_path, "outputs: []", "extra.yml")
    written(tmp_path, "not a preset", "notes.txt")
    assert load_preset("karaoke", own=tmp_path).description == "mine"
    names = [preset.name for preset in list_presets(own=tmp_path)]
    assert "extra" in names and "none" in names and "notes" not in names and names == sorted(names)


def test_the_users_folder_can_be_chosen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    written(tmp_path, "outputs: []", "mine.yaml")
    monkeypatch.setenv("TSBS_DAW_PRESETS", str(tmp_path))
    assert "mine" in preset_files(Settings.from_environment().presets)
    monkeypatch.delenv("TSBS_DAW_PRESETS")
    monkeypatch.setenv("TSBS_DAW_HOME", str(tmp_path / "home"))
    assert "mine" not in preset_files(Settings.from_environment().presets)


def test_a_missing_file_a_folder_and_a_pipe_are_refused(tmp_path: Path):
    import os

    (tmp_path / "folder.yaml").mkdir()
    paths = [tmp_path / "gone.yaml", tmp_path / "folder.yaml"]
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe.yaml")
        paths.append(tmp_path / "pipe.yaml")
    for path in paths:
        with pytest.raises(PresetError, match=r"\.yaml: no such preset file"):
            load_preset(path)


@pytest.mark.parametrize(
    "name", ["vocals", "Überblick", "a.b", "no vocals (soft)", "日本", "-", "com", "conga", "aux in", "it's 100 %"]
)
def test_a_name_that_is_accepted_is_the_same_file_name_everywhere(name: str):
    assert name_problem(name) is None
    assert safe_name(name) == name


@pytest.mark.parametrize(
    "name",
    ["", " a", "a.", ".a", "a  b", "a\tb", "a\nb", "a:b", "a\\b", "nul", "COM1", "lpt9.x", "e\u0301", "a\u202eb",
     "a\u00a0b"],
)  # fmt: skip
def test_a_name_that_another_system_would_change_is_refused(name: str):
    assert name_problem(name) or not name


def test_passes_are_read_in_order_and_paths_of_models_are_relative_to_the_preset(tmp_path: Path):
    text = "passes:\n- {stem: vocals, model: voices}\n- {stem: lead, model: my/a.safetensors, keep: [l, {r: R 2}]}\n"
    preset = load_preset(written(tmp_path, text))
    assert preset.outputs == ()
    assert preset.passes == (
        Pass("vocals", "voices"),
        Pass("lead", str(tmp_path / "my" / "a.safetensors"), (("l", "l"), ("r", "R 2"))),
    )
    assert load_preset(written(tmp_path, "outputs: []\npasses:\n")).passes == ()


@pytest.mark.parametrize(
    ("passes", "place", "said"),
    [
        ("vocals", "1:9", "passes must be a list"),
        ("[vocals]", "1:10", "a pass must be a mapping"),
        ("[{stem: vocals}]", "1:10", "a pass needs `model:`"),
        ("[{model: x}]", "1:10", "a pass needs `stem:`"),
        ("[{stem: vocals, modell: x}]", "1:25", "did you mean 'model'?"),
        ("[{stem: '', model: x}]", "1:17", "is empty"),
        ("[{stem: vocals, model: ''}]", "1:32", "model is empty"),
        ("[{stem: a/b, model: x}]", "1:17", "not a valid stem name"),
        ("[{stem: vocals, model: x}, {stem: vocals, model: y}]", "1:43", "two passes separate the stem 'vocals'"),
        ("[{stem: vocals, model: x, keep: []}]", "1:41", "`keep:` is empty"),
        ("[{stem: vocals, model: x, keep: lead}]", "1:41", "keep must be a list"),
        ("[{stem: vocals, model: x, keep: [a, a]}]", "1:45", "'a' is named twice"),
        ("[{stem: vocals, model: x, keep: [a, {b: A}]}]", "1:45", "'A' is named twice"),
        ("[{stem: vocals, model: x, keep: [{a: b, c: d}]}]", "1:42", "one stem per entry"),
        ("[{stem: vocals, model: x, keep: [{a: rest}]}]", "1:46", "the name 'rest' is reserved"),
        ("[{stem: vocals, model: x, keep: [{a: ../b}]}]", "1:46", "not a valid stem name"),
    ],
)
def test_a_pass_that_makes_no_sense_is_refused_at_its_place(tmp_path: Path, passes: str, place: str, said: str):
    path = written(tmp_path, f"passes: {passes}")
    with pytest.raises(PresetError) as refused:
        load_preset(path)
    assert str(refused.value).startswith(f"{path}:{place}: ") and said in str(refused.value)


def test_nine_passes_are_too_many(tmp_path: Path):
    entries = ", ".join(f"{{stem: s{index}, model: x}}" for index in range(9))
    with pytest.raises(PresetError, match="passes has 9 entries; at most 8 are allowed"):
        load_preset(written(tmp_path, f"passes: [{entries}]"))
