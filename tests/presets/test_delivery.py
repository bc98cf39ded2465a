"""The `delivery:` section: what it says, and what is refused, with its place."""

from __future__ import annotations

from pathlib import Path

import pytest
from effects.preset_files import check_refused, written

from tsbs_daw.core.errors import PresetError
from tsbs_daw.presets.delivery import MOST_STEMS, PLAIN, DeliveryOptions
from tsbs_daw.presets.preset import load_preset
from tsbs_daw.presets.rules import FIELDS, template_fields, template_problem

GOOD = """\
outputs: []
delivery:
  format: wav24
  names: "{artist} - {title} [{bpm} BPM {camelot}] {stem}"
  loudness: -14 LUFS
  sessions: [rpp, dawproject]
  analysis: true
  loops: [4, 8 bars]
  stem_mp4: true
  embed: false
  markers: bars
  source: copy
  stems: [vocals, rest]
  residual: separate
  quality: best
"""


def test_everything_is_read(tmp_path: Path):
    assert load_preset(written(tmp_path, GOOD)).delivery == DeliveryOptions(
        format="wav24",
        names="{artist} - {title} [{bpm} BPM {camelot}] {stem}",
        loudness_lufs=-14.0,
        sessions=("rpp", "dawproject"),
        analysis=True,
        loops=(4, 8),
        stem_mp4=True,
        embed=False,
        markers="bars",
        source="copy",
        stems=("vocals", "rest"),
        residual="separate",
        quality="best",
    )


@pytest.mark.parametrize("text", ["outputs: []\n", "outputs: []\ndelivery:\n", "outputs: []\ndelivery: {}\n"])
def test_without_a_section_delivery_is_plain(tmp_path: Path, text: str):
    delivery = load_preset(written(tmp_path, text)).delivery
    assert delivery == PLAIN and delivery.plain and not delivery.analyses


@pytest.mark.parametrize(
    ("old", "new", "place", "what"),
    [
        ("format: wav24", "fromat: wav24", "fromat", "did you mean 'format'?"),
        ("wav24", "wav42", "wav42", "did you mean 'wav24'?"),
        ("wav24", "ogg", "ogg", "there are wav32f,"),
        ("residual: separate", "residual: seperate", "seperate", "did you mean 'separate'?"),
        ("quality: best", "quality: bset", "bset", "did you mean 'best'?"),
        ("quality: best", "quality: ultra", "ultra", "there are fast, normal, best"),
        ("rest]", "vocals]", "vocals]", "named twice"),
        ("rest]", "a/b]", "a/b]", "not a valid stem name"),
        ("[vocals, rest]", "[]", "[]", "without stems, there is nothing to make loops from"),
        ("{artist}", "{artits}", '"{artits', "has no field 'artits'; did you mean 'artist'?"),
        ("{artist}", "{0}", '"{0}', "has no field '0'; there are artist,"),
        ("{artist}", "{artist", '"{artist', "a field is written like {stem}"),
        ("{artist}", "{{artist}}", '"{{artist', "a brace outside a field"),
        ("{bpm}", "{bpm:.0f}", '"{artist', "write {bpm}"),
        (" {stem}", "", '"{artist', "has no {stem}"),
        ("{artist} -", "{artist}/", '"{artist', "has the character '/'"),
        ('"{artist} - {title} [{bpm} BPM {camelot}] {stem}"', "{stem}", "{stem}", "quoted text"),
        ("{artist}", "x" * 200, '"xxx', "longer than 200"),
        ("-14 LUFS", "-14 dB", "-14 dB", "must be a number"),
        ("-14 LUFS", "-3", "-3", "from -40 to -5 LUFS, not -3"),
        ("dawproject", "als", "als", "invalid session: 'als'"),
        ("dawproject", "rpp", "rpp]", "named twice"),
        ("analysis: true", "analysis: yes", "yes", "true or false"),
        ("analysis: true", "analysis: false", "false", "need the analysis"),
        ("[4, 8 bars]", "[4, 4]", "4]", "named twice"),
        ("[4, 8 bars]", "2.5", "2.5", "a whole number of bars"),
        ("[4, 8 bars]", "[65]", "65", "from 1 to 64"),
        ("wav24", "mp3", "mp3", "sample-exact"),
        ("wav24\n", "mp3\n  loops: []\n  # ", "mp3", "compressed twice"),
        ("markers: bars", "markers: beats", "beats", "did you mean 'bars'?"),
        ("source: copy", "source: [copy]", "[copy]", "must be text"),
        ("delivery:\n", "delivery: wav24\n#", "wav24", "must be a mapping"),
    ],
)
def test_what_is_wrong_is_named_with_its_place(tmp_path: Path, old: str, new: str, place: str, what: str):
    assert old in GOOD
    text = GOOD.replace(old, new, 1)
    if "loops: []" in new:
        text = text.replace("  loops: [4, 8 bars]\n", "")
    if "delivery: wav24" in new:
        text = text.partition("#")[0]
    check_refused(tmp_path, text, place, what)


def test_what_needs_an_analysis_gets_one_without_asking(tmp_path: Path):
    for asked in ("loops: 4", 'names: "{stem} {bpm}"', 'names: "{key} {stem}"', "analysis: true"):
        assert load_preset(written(tmp_path, f"outputs: []\ndelivery: \n  {asked}\n")).delivery.analyses
    for asked in ('names: "{artist} {stem}"', "loudness: -14", "markers: bars", "format: mp3"):
        assert not load_preset(written(tmp_path, f"outputs: []\ndelivery: \n  {asked}\n")).delivery.analyses


def test_a_template_names_its_fields():
    whole = " ".join(f"{{{field}}}" for field in FIELDS)
    assert template_fields(whole) == FIELDS and template_problem(whole) is None


def test_a_changed_section_is_another_preset(tmp_path: Path):
    first = load_preset(written(tmp_path, GOOD)).sha256
    assert load_preset(written(tmp_path, GOOD.replace("-14", "-13"))).sha256 != first


def test_a_request_overrides_what_it_states_and_leaves_the_rest_to_the_preset(tmp_path: Path):
    preset = load_preset(written(tmp_path, GOOD)).delivery
    request = DeliveryOptions(format="flac16", analysis=False, embed=True)  # the defaults count, once they are stated
    both = preset.overridden_by(request)
    assert both.settled == {**preset.settled, "format": "flac16", "analysis": False, "embed": True}
    assert preset.overridden_by(None) == preset.overridden_by(DeliveryOptions()) == preset


def test_an_option_that_is_not_stated_is_null_in_json_and_null_states_nothing():
    request = DeliveryOptions(format="wav32f", loops=())
    written = request.model_dump(mode="json")
    assert {name: value for name, value in written.items() if value is not None} == {"format": "wav32f", "loops": []}
    assert set(written) == set(DeliveryOptions.model_fields)
    assert DeliveryOptions.model_validate(written).stated == request.stated


@pytest.mark.parametrize("count", [MOST_STEMS, MOST_STEMS + 1])
def test_as_many_stems_are_read_as_can_be_delivered(tmp_path: Path, count: int):
    stems = ", ".join(f"stem{number}" for number in range(count))
    path = written(tmp_path, f"outputs: []\ndelivery: {{stems: [{stems}]}}\n")
    if count == MOST_STEMS:
        assert len(load_preset(path).delivery.stems) == count
    else:
        with pytest.raises(PresetError, match=r":2:\d+: .*stems"):
            load_preset(path)
