"""Which plug-ins crashed, across runs of the program."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import pytest

from tsbs_daw.core.errors import EffectError
from tsbs_daw.effects.vst3 import Quarantine


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    inside = tmp_path / "Thing.vst3" / "Contents"
    inside.mkdir(parents=True)
    (inside / "Thing.so").write_text("code")
    return tmp_path / "Thing.vst3"


def test_the_second_crash_counts_for_good(tmp_path: Path, bundle: Path):
    file = tmp_path / "cache" / "plugins.json"
    Quarantine(file).check(bundle)
    assert Quarantine(file).add(bundle, "crashed") == 1
    Quarantine(file).check(bundle)
    assert Quarantine(file).add(bundle, "hung") == 2
    with pytest.raises(EffectError, match=r"Thing\.vst3' is disabled because it hung 2 times; update it"):
        Quarantine(file).check(bundle)


def test_an_updated_plugin_starts_anew(tmp_path: Path, bundle: Path):
    quarantine = Quarantine(tmp_path / "plugins.json")
    quarantine.add(bundle, "crashed")
    quarantine.add(bundle, "crashed")
    os.utime(bundle / "Contents" / "Thing.so", (2_000_000_000, 2_000_000_000))
    quarantine.check(bundle)
    assert quarantine.add(bundle, "crashed") == 1


def test_a_cleared_plugin_is_forgotten_and_others_stay(tmp_path: Path, bundle: Path):
    quarantine, other = Quarantine(tmp_path / "plugins.json"), tmp_path / "Other.vst3"
    other.write_text("code")
    for plugin in (bundle, bundle, other, other):
        quarantine.add(plugin, "crashed")
    quarantine.clear(bundle)
    quarantine.check(bundle)
    with pytest.raises(EffectError):
        quarantine.check(other)


@pytest.mark.parametrize("content", ["", "[]", "{", '{"x": 1}', '{"x": {"crashes": "many"}}', "\x00"])
def test_a_damaged_list_counts_as_empty_and_says_so(
    tmp_path: Path, bundle: Path, content: str, caplog: pytest.LogCaptureFixture
):
    file = tmp_path / "plugins.json"
    file.write_text(content)
    with caplog.at_level(logging.WARNING):
        Quarantine(file).check(bundle)
    assert "damaged" in caplog.text
    assert Quarantine(file).add(bundle, "crashed") == 1
