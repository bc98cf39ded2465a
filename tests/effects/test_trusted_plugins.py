"""A plug-in outside the system's folders is a foreign program: it runs only when the user has allowed it as it is."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import signals
from typer.testing import CliRunner

from tsbs_daw.cli.presets import app
from tsbs_daw.core.errors import EffectError
from tsbs_daw.effects.chain import render
from tsbs_daw.effects.table import Effect, Output
from tsbs_daw.effects.vst3 import PluginHost, TrustedPlugins

PRESET = """description: x
outputs:
  - name: out
    from: [vocals]
    chain:
      - VST3: {{path: {path}}}
"""


@pytest.fixture
def home(tmp_path: Path, monkeypatch) -> Path:
    monkeypatch.setenv("TSBS_DAW_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def plugin(tmp_path: Path) -> Path:
    bundle = tmp_path / "evil.vst3" / "Contents"
    bundle.mkdir(parents=True)
    (bundle / "evil.so").write_bytes(b"not really")
    return tmp_path / "evil.vst3"


def one(plugin: Path) -> Output:
    return Output("out", ("sound",), (0.0,), (Effect("VST3", {}, path=str(plugin)),))


def run(plugin: Path) -> str:
    with pytest.raises(EffectError) as refusal:
        render(one(plugin), {"sound": signals.noise(100)}, signals.RATE, None)
    return str(refusal.value)


def test_a_plugin_by_path_does_not_run_without_the_users_word(home, plugin):
    assert "tsbs-daw presets trust" in run(plugin)
    assert "would run with your permissions" in run(plugin)


def test_presets_check_names_it_and_presets_trust_allows_it_as_long_as_it_stays_the_same(home, plugin, tmp_path):
    preset = tmp_path / "preset.yaml"
    preset.write_text(PRESET.format(path="evil.vst3" if os.name == "nt" else str(plugin)))
    told = CliRunner().invoke(app, ["check", str(preset)]).output
    assert "runs the plug-in" in told and "evil.vst3" in told and "presets trust" in told
    told = CliRunner().invoke(app, ["trust", str(preset)]).output
    assert "Allowed" in told
    assert "may run" in CliRunner().invoke(app, ["check", str(preset)]).output
    assert "presets trust" not in run(plugin), "it is loaded now, and fails because it is no plug-in"
    (plugin / "Contents" / "evil.so").write_bytes(b"another one")
    assert "presets trust" in run(plugin)
    (plugin / "Contents" / "evil.so").write_bytes(b"not really")
    (plugin / "Contents" / "more.so").write_bytes(b"")
    assert "presets trust" in run(plugin)


def test_a_link_into_the_systems_folders_is_judged_by_what_it_leads_to(home, plugin, tmp_path, monkeypatch):
    folder = tmp_path / "system"
    folder.mkdir()
    (folder / "linked.vst3").symlink_to(plugin)
    monkeypatch.setattr("tsbs_daw.effects.vst3.plugin_folders", lambda: [folder])
    assert "presets trust" in run(folder / "linked.vst3")
    plugin.rename(folder / "evil.vst3")
    assert "presets trust" not in run(folder / "evil.vst3")


def test_a_damaged_record_allows_nothing(home, plugin):
    home.mkdir()
    for text in ("", "[]", "{", '"x"'):
        (home / "trusted-plugins.json").write_text(text)
        assert "presets trust" in run(plugin)


def test_the_host_reads_the_record_anew_for_each_song(home, plugin):
    host = PluginHost()
    TrustedPlugins(home / "trusted-plugins.json").add(plugin)
    host.trusted.check(plugin)
