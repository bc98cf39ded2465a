"""The YAML file of the watch folders: what it may say, and what is said about what it may not."""

from __future__ import annotations

from pathlib import Path

import pytest

from tsbs_daw.contracts.job import Treatment
from tsbs_daw.core.errors import SettingsError
from tsbs_daw.watch.folders import WatchFolder, check_folders, load_folders


def load(tmp_path: Path, text: str) -> tuple[WatchFolder, ...]:
    path = tmp_path / "folders.yaml"
    path.write_text(text, encoding="utf-8")
    return load_folders(path)


def test_folders_are_read_and_paths_start_at_the_file(tmp_path):
    folders = load(
        tmp_path,
        """
        folders:
          - {path: drop, output: stems}
          - {path: /in, output: ~/stems, preset: karaoke, model: musdb18, stage: mask, null: true, recursive: false}
          - {path: own, output: stems, preset: my/preset.yaml}
        """,
    )
    assert folders[0] == WatchFolder(tmp_path / "drop", tmp_path / "stems")
    output = Path("~/stems").expanduser()
    asked = Treatment(preset="karaoke", model="musdb18", stage="mask", null=True)
    assert folders[1] == WatchFolder(Path("/in"), output, asked, False)
    assert folders[2].treatment.preset == str(tmp_path / "my" / "preset.yaml")


def test_models_to_be_averaged_and_a_quality_belong_to_a_folder_or_a_subfolder(tmp_path):
    (tmp_path / "a, b.safetensors").touch()
    (folder,) = load(
        tmp_path,
        """
        folders:
          - path: drop
            output: stems
            model: "default, mine/two.safetensors"
            delivery: {quality: best}
            subfolders:
              drafts: {model: "a, b.safetensors", delivery: {quality: fast}}
        """,
    )
    assert folder.treatment.model == f"default,{tmp_path / 'mine' / 'two.safetensors'}"
    assert folder.treatment.delivery.quality == "best"
    below = folder.rule_for("drafts/song.wav").treatment
    assert below.model == str(tmp_path / "a, b.safetensors") and below.delivery.quality == "fast"


def test_the_example_of_the_docs_can_be_used(tmp_path):
    page = (Path(__file__).parents[2] / "docs" / "watch-folders.md").read_text(encoding="utf-8")
    text = next(block for block in page.split("```yaml\n")[1:] if block.startswith("folders:")).split("```")[0]
    assert [folder.treatment.preset for folder in load(tmp_path, text)] == ["none", "karaoke"]


@pytest.mark.parametrize(
    ("text", "sentence"),
    {
        "folders: []": r"folders\.yaml:1:10: folders must not be empty",
        "": r"folders\.yaml:1:1: .* is empty; it needs `folders:`",
        "folders: [{path: a}]": r"folders\.yaml:1:11: folders\.0\.output is missing",
        "folders:\n  - {path: a, output: b, pressed: none}": r"folders\.yaml:2:26: .*'pressed'.* mean 'preset'",
        "folders: [{path: a, output: b, stage: half}]": r"folders\.yaml:1:39: .*'full' or 'mask'",
        "folders:\n  - path: [a": r"folders\.yaml:2:\d+: not valid YAML",
        "folders: [{path: a, output: b}, {path: a/../a, output: c}]": "listed twice",
        "folders:\n  - path: a\n    output: b\n    path: c": r"folders\.yaml:4:5: 'path' is given twice",
        "a: &x b\nfolders: *x": r"folders\.yaml:1:4: anchors",
        "a: !!python/object:os.system x": r"folders\.yaml:1:4: tags",
        "x" * 70_000: "larger than 64 KiB",
    }.items(),
)
def test_mistakes_are_named_with_their_place(tmp_path, text, sentence):
    with pytest.raises(SettingsError, match=sentence) as raised:
        load(tmp_path, text)
    assert "\n" not in str(raised.value)


def test_a_missing_file_is_a_sentence(tmp_path):
    with pytest.raises(SettingsError, match="Cannot read"):
        load_folders(tmp_path / "none.yaml")


def test_a_file_is_not_a_folder(tmp_path):
    (tmp_path / "song.wav").touch()
    with pytest.raises(SettingsError, match="is a file"):
        check_folders([WatchFolder(tmp_path / "song.wav", tmp_path / "out")])
