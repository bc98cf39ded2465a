"""The scripts as text, and the modules that need no project."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from reaper.signatures import functions, lua_only
from reaper.stage import Studio

from tsbs_daw.core.config import resource_folder
from tsbs_daw.integrations.reapack import header, preset_actions
from tsbs_daw.integrations.reaper import PresetEntry
from tsbs_daw.presets.preset import read_preset

FOLDER = resource_folder("reaper_scripts") / "TSBS-DAW"
FILES = sorted(FOLDER.rglob("*.lua"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_every_function_is_in_the_lua_documentation_or_asked_for(path: Path):
    text = path.read_text(encoding="utf-8")
    for name in sorted(set(re.findall(r"reaper\.(\w+)", text)) - lua_only()):
        if name.startswith("ImGui_"):
            assert path.name == "ui_imgui.lua" and 'APIExists("ImGui_CreateContext")' in text
            continue
        if name.startswith("CF_"):  # the SWS extension's
            assert f'APIExists("{name}")' in text, name
            continue
        assert name in functions(), f"there is no reaper.{name}"
        assert functions()[name]["in_lua_docs"] or f'APIExists("{name}")' in text, name


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.lua")), ids=lambda path: path.name)
def test_every_action_has_a_header_and_one_package_owns_the_files(path: Path):
    tags = header(path.read_text(encoding="utf-8"))
    assert tags["description"].startswith("tsbs-daw: ") and tags["about"]
    if path.name == "tsbs-daw_Separate selected items.lua":
        assert {"author", "version", "changelog", "provides"} <= tags.keys()
        assert "[nomain] lib/*.lua" in tags["provides"]
    else:
        assert "noindex" in tags


def test_the_actions_of_the_presets_are_as_the_command_makes_them():
    shipped = [read_preset(path) for path in sorted(resource_folder("presets").glob("*.yaml"))]
    entries = [PresetEntry(preset.name, preset.description, ()) for preset in shipped]
    made = preset_actions(entries)
    assert {path.name for path in FOLDER.glob("*(*).lua")} == set(made)
    for name, content in made.items():
        assert (FOLDER / name).read_text(encoding="utf-8") == content, "run `tsbs-daw reaper actions`"


def test_modules_fit_in_a_head():
    for path in FILES:
        assert len(path.read_text(encoding="utf-8").splitlines()) <= 330, path.name


@pytest.fixture
def lua(studio: Studio):
    """Evaluates an expression in which `use` gives the modules."""
    script = studio.run("Jobs")
    load = script.lua.eval("function(f) return assert(loadfile(f .. 'require.lua'))()(f) end")
    use = load(str(studio.scripts) + "/lib/")

    def evaluate(code: str, *arguments: object):
        return script.lua.eval(f"function(use, ...) {code} end")(use, *arguments)

    return evaluate


DOCUMENTS = [
    {"a": [1, 2.5, -3e-7, True, False, "x"], "b": {"c": {}, "d": []}},
    {"text": 'quotes " \\ / \b\f\n\r\t \u007f ümläut 日本 🎚️', "big": 2**53, "small": 1e-300},
    {"nested": [[[[]]], {"": ""}]},
]


@pytest.mark.parametrize("document", DOCUMENTS, ids=range(len(DOCUMENTS)))
@pytest.mark.parametrize("ascii_only", [True, False])
def test_json_goes_there_and_back(document: dict, ascii_only: bool, lua):
    text = lua(
        "local json = use('json') return assert(json.encode(assert(json.decode(...))))",
        json.dumps(document, ensure_ascii=ascii_only),
    )
    assert json.loads(text) == document


@pytest.mark.parametrize(
    "text",
    ["", "{", "[1,]", '{"a" 1}', '{"a":}', "{a: 1}", '"open', '"\\x"', '"\\u12"', "nul", "1 2", "--1", "[" * 100,
     '"\n"', "01x", "\x00"],
)  # fmt: skip
def test_what_is_no_json_is_refused(text: str, lua):
    value, why = lua("return use('json').decode(...)", text)
    assert value is None and isinstance(why, str)


@pytest.mark.parametrize("code", ["0/0", "1/0", "print", "'\\xff'"])
def test_what_json_cannot_say_is_refused(code: str, lua):
    value, why = lua(f"return use('json').encode({{ a = {code} }})")
    assert value is None and isinstance(why, str)


def test_ids_are_what_the_daemon_takes_and_never_the_same(lua):
    ids = {lua("return use('text').new_id()") for _ in range(200)}
    assert len(ids) == 200 and all(re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}", one) for one in ids)


def test_long_names_are_cut_between_characters(lua):
    assert lua("return use('text').cut(...)", "ü" * 10, 5) == "üüüü…"


def test_a_wav_is_what_other_programs_read(lua, tmp_path: Path):
    import numpy as np
    import soundfile

    values = np.linspace(-1.5, 1.5, 700).astype(np.float32)
    lua(
        "local path, values = ... local t = {} for i = 1, 700 do t[i] = values[i - 1] end "
        "local w = assert(use('wav').create(path, 48000, 2, 350)) assert(w:write(t, 700)) assert(w:close())",
        str(tmp_path / "a.wav"),
        values.tolist(),
    )
    audio, rate = soundfile.read(tmp_path / "a.wav", dtype="float32")
    assert rate == 48000 and np.array_equal(audio.ravel(), values)


def test_a_wav_longer_than_the_format_is_refused(lua, tmp_path: Path):
    made, why = lua("return use('wav').create(..., 48000, 2, 1 << 30)", str(tmp_path / "a.wav"))
    assert made is None and "longer than a WAV file can be" in why
