"""Stems that go through another model: sums, names, sessions, the cache, and what cannot be."""

from __future__ import annotations

import xml.etree.ElementTree as ET
import zipfile

import numpy as np
import packaged_networks as networks
import pytest
import rpp
import signals
from harness.studio import Studio, sound_of, stem_of
from sessions.session_samples import read_tracks, values

from tsbs_daw.contracts.manifest import Manifest, read_manifest
from tsbs_daw.core.errors import PresetError, TsbsDawError, UnknownModel, UsageError

SIX = tuple(networks.SIX)
VOICES = "passes: [{stem: vocals, model: voices}]\n"
EXACT = 1e-5  # -100 dB


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Untrained: a song's six stems, two voices of a stem, and the two hands of a piano."""
    folder = tmp_path_factory.mktemp("models")
    networks.saved(networks.build("htdemucs", networks.TINY["htdemucs"]), folder / "six.safetensors")
    for seed, (name, stems) in enumerate({"voices": ["lead", "backing"], "hands": ["left", "right"]}.items(), 1):
        values = {**networks.TINY["bs-roformer"], "stems": stems}
        networks.saved(networks.build("bs-roformer", values, seed=seed), folder / f"{name}.safetensors")
    return folder


@pytest.fixture
def studio(tmp_path, models) -> Studio:
    made = Studio(tmp_path)
    made.settings.models.symlink_to(models, target_is_directory=True)
    return made


def names(result) -> list[str]:
    return [stem.name for stem in result.stems]


def left_out(parts: list[np.ndarray], whole: np.ndarray) -> float:
    difference = np.sum(parts, axis=0, dtype=np.float64) - whole
    return float(np.sqrt(np.mean(difference**2)) / max(np.sqrt(np.mean(whole.astype(np.float64) ** 2)), 1e-12))


def write(studio: Studio, kind: str):
    rate = 48_000 if kind == "48 kHz" else 44_100
    stereo = signals.mixture(signals.song(1.3, rate))
    return signals.write_file(studio.root / "song.wav", stereo[:1] if kind == "mono" else stereo, rate)


@pytest.mark.parametrize("kind", ["stereo", "mono", "48 kHz"])
def test_parts_sum_to_their_whole_and_everything_to_the_song(studio, kind):
    path = write(studio, kind)
    preset = studio.preset("passes:\n- {stem: vocals, model: voices}\n- {stem: lead, model: hands}\n")
    result = studio.run(path, model="six", preset=preset)
    assert names(result) == ["drums", "bass", "other", "vocals", "lead", "left", "right", "backing", "guitar", "piano"]
    of = {stem.name: sound_of(stem.path) for stem in result.stems}
    assert left_out([of["left"], of["right"]], of["lead"]) < EXACT
    assert left_out([of["lead"], of["backing"]], of["vocals"]) < EXACT
    assert left_out([of[stem] for stem in SIX], sound_of(path)) < EXACT
    playing = [of[stem.name] for stem in result.stems if not stem.muted]
    assert left_out(playing, sound_of(path)) < EXACT
    assert {stem.name for stem in result.stems if stem.muted} == {"vocals", "lead"}
    manifest = read_manifest(result.folder)
    assert manifest.residual_db is None or manifest.residual_db < -100
    assert [(step.stem, step.model.name, step.parts) for step in manifest.passes] == [
        ("vocals", "voices", ("lead", "backing")),
        ("lead", "hands", ("left", "right")),
    ]


@pytest.mark.parametrize("residual", ["separate", "drop"])
def test_what_a_pass_leaves_out_is_kept_or_dropped_like_what_the_song_s_model_leaves_out(studio, residual):
    path, preset = studio.song(), studio.preset(VOICES)
    result = studio.run(path, model="six", preset=preset, delivery={"residual": residual})
    of = {stem.name: sound_of(stem.path) for stem in result.stems}
    parts = [of["lead"], of["backing"]]
    if residual == "separate":
        assert {"residual", "vocals residual"} <= set(of)
        assert left_out([*parts, of["vocals residual"]], of["vocals"]) < EXACT
        playing = [of[stem.name] for stem in result.stems if not stem.muted]
        assert left_out(playing, sound_of(path)) < EXACT
    else:
        assert set(of) == {*SIX, "lead", "backing"}
        assert left_out(parts, of["vocals"]) > EXACT


def test_a_pass_is_cached_by_content_and_its_model_is_not_loaded_again(studio, monkeypatch):
    path = studio.song()
    first = studio.run(path, model="six", preset=studio.preset(VOICES))
    assert studio.phrases[1:3] == ["separating", "separating vocals"]
    assert studio.progress == sorted(studio.progress)

    monkeypatch.delattr("tsbs_daw.pipeline.separate.load_pass_separator")  # so that using it is an error
    other = studio.preset(VOICES + "outputs: [{name: solo, from: lead}]\n", "other")
    second = studio.run(path, model="six", preset=other)
    assert not {"separating", "separating vocals"} & set(studio.phrases)
    assert np.array_equal(stem_of(first, "lead"), stem_of(second, "lead"))
    np.testing.assert_allclose(stem_of(second, "solo"), stem_of(first, "lead"), rtol=0, atol=1e-7)
    # Another name for the same stem of the same model is nothing new.
    kept = studio.preset("passes: [{stem: vocals, model: voices, keep: [{lead: soloist}]}]", "renamed")
    third = studio.run(path, model="six", preset=kept)
    assert "separating vocals" not in studio.phrases
    assert np.array_equal(stem_of(third, "soloist"), stem_of(first, "lead"))
    assert np.array_equal(stem_of(third, "vocals rest"), stem_of(first, "backing"))


def test_other_weights_under_the_same_name_are_another_result(studio, tmp_path):
    preset = studio.preset(f"passes: [{{stem: vocals, model: {tmp_path / 'mine.safetensors'}}}]")
    kind, values = "bs-roformer", {**networks.TINY["bs-roformer"], "stems": ["lead", "backing"]}
    results = []
    for seed in (1, 2):
        networks.saved(networks.build(kind, values, seed=seed), tmp_path / "mine.safetensors")
        results.append(studio.run(path := studio.song(), model="six", preset=preset))
    assert results[0].folder != results[1].folder and path.exists()
    assert not np.array_equal(stem_of(results[0], "lead"), stem_of(results[1], "lead"))


@pytest.mark.parametrize(
    ("stems", "written", "computed", "muted"),
    [
        (["lead"], ["lead"], True, []),
        (["drums"], ["drums"], False, []),
        (["vocals"], ["vocals"], False, []),
        (["vocals", "lead"], ["vocals", "lead"], True, ["lead"]),
        (["vocals", "lead", "backing"], ["vocals", "lead", "backing"], True, ["vocals"]),
        (["lead", "rest"], ["lead", "no_lead"], True, []),
        (["drums", "rest"], ["drums", "no_drums"], False, []),
    ],
)
def test_only_what_is_asked_for_is_computed_and_written(studio, stems, written, computed, muted):
    path, preset = studio.song(), studio.preset(VOICES)
    result = studio.run(path, model="six", preset=preset, delivery={"stems": stems})
    assert names(result) == written and {file.stem for file in result.folder.glob("*.wav")} == set(written)
    assert ("separating vocals" in studio.phrases) == computed
    assert [stem.name for stem in result.stems if stem.muted] == muted
    if "rest" in stems:
        assert left_out([sound_of(stem.path) for stem in result.stems], sound_of(path)) < EXACT


def test_an_output_alone_needs_its_pass_and_a_stem_of_its_name_is_called_dry(studio):
    preset = studio.preset(VOICES + "outputs: [{name: Lead, from: [lead, drums], chain: [Invert]}]")
    path = studio.song()
    alone = studio.run(path, model="six", preset=preset, delivery={"stems": []})
    assert names(alone) == ["Lead"] and "separating vocals" in studio.phrases
    every = studio.run(path, model="six", preset=preset)
    assert names(every)[:1] == ["Lead"] and "lead (dry)" in names(every)
    sent = stem_of(every, "lead (dry)") + stem_of(every, "drums")
    np.testing.assert_allclose(-stem_of(every, "Lead"), sent, rtol=0, atol=1e-6)


def test_sessions_nest_a_stem_and_its_parts_in_a_folder(studio):
    text = "passes:\n- {stem: vocals, model: voices}\n- {stem: lead, model: hands}\n"
    preset = studio.preset(text + "delivery: {sessions: [rpp, dawproject]}")
    result = studio.run(studio.song(), model="six", preset=preset, delivery={"stems": ["drums", "vocals", "left"]})
    tracks = read_tracks(rpp.loads(result.session.read_text(encoding="utf-8")))
    assert [(track.folders, track.name, track.is_folder) for track in tracks] == [
        ((), "song", True),
        (("song",), "drums", True),
        (("song", "drums"), "drums", False),
        (("song",), "vocals", True),
        (("song", "vocals"), "vocals", False),
        (("song", "vocals"), "lead", True),
        (("song", "vocals", "lead"), "left", False),
    ]
    assert [values(track.element, "ISBUS") for track in tracks] == [
        ["1", "1"], ["1", "1"], ["2", "-1"], ["1", "1"], ["0", "0"], ["1", "1"], ["2", "-3"],
    ]  # fmt: skip
    assert [values(track.element, "MUTESOLO")[0] for track in tracks] == ["0", "0", "0", "0", "0", "0", "1"]
    assert [values(track.items[0].find("SOURCE"), "FILE") for track in tracks if not track.is_folder] == [
        ["drums.wav"], ["vocals.wav"], ["left.wav"],
    ]  # fmt: skip
    with zipfile.ZipFile(result.folder / "song.dawproject") as project:
        structure = ET.fromstring(project.read("project.xml")).find("Structure")
    (voice,) = structure.findall("Track[@name='vocals']")
    (lead,) = voice.findall("Track[@name='lead']")
    assert [track.get("name") for track in voice.findall("Track")] == ["vocals", "lead"]
    assert [track.get("name") for track in lead.findall("Track")] == ["left"]
    channel = {name: track.find("Channel") for name, track in {"voice": voice, "lead": lead}.items()}
    assert channel["lead"].get("destination") == channel["voice"].get("id")
    assert lead.find("Track/Channel").get("destination") == channel["lead"].get("id")


def test_a_plain_session_nests_as_well_and_a_stem_inside_a_group_gets_a_folder_of_its_own(studio):
    six = "passes: [{stem: other, model: voices}]\n"
    path = studio.song()
    plain = studio.run(path, model="six", preset=studio.preset(six))
    tracks = read_tracks(rpp.loads(plain.session.read_text(encoding="utf-8")))
    assert [track.name for track in tracks if track.folders == ("song", "other")] == ["other", "lead", "backing"]
    grouped = studio.run(path, model="six", preset=studio.preset(six + "delivery: {format: flac24}", "flac"))
    tracks = read_tracks(rpp.loads(grouped.session.read_text(encoding="utf-8")))
    assert [track.name for track in tracks if track.folders == ("song", "music", "other")] == [
        "other", "lead", "backing",
    ]  # fmt: skip


def test_parts_are_named_like_all_stems_and_a_stem_mp4_holds_their_wholes(studio, monkeypatch):
    held = []
    monkeypatch.setattr(
        "tsbs_daw.audio.stem_mp4.write_stem_mp4", lambda path, master, stems, *more, **named: held.extend(stems)
    )
    delivery = "delivery: {names: '{song} - {stem}', format: flac24, stem_mp4: true}"
    path, preset = studio.song(), studio.preset(VOICES + delivery)
    result = studio.run(path, model="six", preset=preset, delivery={"stems": ["drums", "vocals", "lead", "backing"]})
    assert (result.folder / "song - lead.flac").is_file() and (result.folder / "song - vocals.flac").is_file()
    assert [name for name, _, _ in held] == ["drums", "vocals"]
    held.clear()
    studio.run(path, model="six", preset=preset, delivery={"stems": ["drums", "lead"]})
    assert [name for name, _, _ in held] == ["drums", "lead"]


@pytest.mark.parametrize(
    ("passes", "error", "said"),
    [
        ("[{stem: choir, model: voices}]", PresetError, "a pass over 'choir', but the stems are drums, bass"),
        ("[{stem: vocals, model: voices9}]", UnknownModel, "separates vocals with another model: There is no model"),
        ("[{stem: vocals, model: htdemucs}]", UnknownModel, "models pull htdemucs"),
        ("[{stem: vocals, model: six}]", PresetError, "second stem 'drums'; choose and name"),
        ("[{stem: vocals, model: six, keep: [guitar]}]", PresetError, "second stem 'guitar'.*guitar: NEW NAME"),
        ("[{stem: vocals, model: six, keep: [{guitar: Bass}]}]", PresetError, "second stem 'Bass'"),
        ("[{stem: vocals, model: voices, keep: [leed]}]", PresetError, "keeps 'leed', which voices.* mean 'lead'"),
        (
            "[{stem: lead, model: hands}, {stem: vocals, model: voices}]",
            PresetError,
            "pass over 'lead' comes before the pass that makes this stem; move it below that one",
        ),
        ("[{stem: vocals, model: voices}, {stem: bass, model: voices}]", PresetError, "a second stem 'lead'"),
    ],
)
def test_what_cannot_be_is_one_sentence_with_the_way_out(studio, passes, error, said):
    path = studio.song()
    with pytest.raises(error, match=said) as refused:
        studio.run(path, model="six", preset=studio.preset(f"passes: {passes}"))
    assert isinstance(refused.value, TsbsDawError) and "\n" not in str(refused.value)
    assert not studio.out.exists() or not list(studio.out.iterdir())


@pytest.mark.parametrize(
    ("stems", "said"),
    [
        (["leed"], "no stem 'leed'; did you mean 'lead'"),
        (
            ["lead", "backing", "drums", "bass", "other", "guitar", "piano", "rest"],
            "name at least one stem, but not all",
        ),
    ],
)
def test_stems_that_no_pass_gives_are_refused(studio, stems, said):
    with pytest.raises(UsageError, match=said):
        studio.run(studio.song(), model="six", preset=studio.preset(VOICES), delivery={"stems": stems})


def test_an_output_of_a_stem_that_no_pass_gives_names_those_there_are(studio):
    preset = studio.preset(VOICES + "outputs: [{name: x, from: choir}]")
    with pytest.raises(PresetError, match=r"uses the stem 'choir', but the model provides .*lead, backing"):
        studio.run(studio.song(), model="six", preset=preset)


def test_a_guitar_and_a_piano_come_out_of_another_model_s_other(studio):
    """The stems of that model which the song has already become one part, and nothing is lost."""
    preset = studio.preset("passes: [{stem: drums, model: six, keep: [{guitar: strings}, {piano: keys}]}]")
    path = studio.song()
    result = studio.run(path, model="six", preset=preset)
    of = {stem.name: sound_of(stem.path) for stem in result.stems}
    assert names(result)[:4] == ["drums", "strings", "keys", "drums rest"]
    assert left_out([of["strings"], of["keys"], of["drums rest"]], of["drums"]) < EXACT


def test_a_pass_takes_the_mean_of_several_models(studio, models):
    values = {**networks.TINY["bs-roformer"], "stems": ["lead", "backing"]}
    networks.saved(networks.build("bs-roformer", values, seed=9), models / "others.safetensors")
    preset = studio.preset("passes: [{stem: vocals, model: 'voices,others'}]")
    result = studio.run(studio.song(), model="six", preset=preset)
    assert left_out([stem_of(result, "lead"), stem_of(result, "backing")], stem_of(result, "vocals")) < EXACT
    assert read_manifest(result.folder).passes[0].model.name == "voices,others"
    missing = studio.preset("passes: [{stem: vocals, model: 'voices,htdemucs'}]", "missing")
    with pytest.raises(UnknownModel, match="models pull htdemucs"):
        studio.run(studio.song(), model="six", preset=missing)


def test_a_manifest_of_before_is_still_read(studio):
    result = studio.run(studio.song(), model="six")
    document = studio.manifest(result)
    assert document.pop("passes") == [] and all(stem.pop("folders") == [] for stem in document["stems"])
    assert Manifest.model_validate(document).stems[0].folders == ()


@pytest.mark.parametrize("schema", [1, 2])
def test_a_bridge_learns_of_folders_in_schema_2_alone(studio, schema):
    result = studio.run(studio.song(), model="six", preset=studio.preset(VOICES))
    written = result.model_copy(update={"schema_": schema}).model_dump(mode="json", by_alias=True)
    folders = {stem["name"]: stem.get("folders") for stem in written["stems"]}
    wanted = ["vocals"] if schema == 2 else None
    assert folders["lead"] == folders["vocals"] == wanted and folders["drums"] is None
