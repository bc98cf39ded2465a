"""Whatever text a job, a preset or a list of watch folders holds: it is read, or refused in one printable sentence.

The examples are kept between runs in .hypothesis/; in CI they are the same every time. What was found once is written
down as an example, so that it is tried in every run.
"""

from __future__ import annotations

import json
import string
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tsbs_daw.contracts.job import Job
from tsbs_daw.core.errors import DocumentError, JobFormatError, PresetError, SettingsError
from tsbs_daw.presets.preset import read_preset
from tsbs_daw.watch.folders import load_folders

LONG = 20_000
GOOD = {"schema": 1, "id": "j", "source": {"path": "/music/x.wav"}, "output": "/music/o"}

_ODD = ("\ud83d", "\u202e", "\x00", "\x1b[2J", "a" * 5000, "../..", "/dev/zero", "\uff1d", "null", "1e999")
_PIECES = (
    *("outputs:", "folders:", "delivery:", "- ", "  ", "\n", "name: a", "path: x", "from: [drums]", "chain:", "{", "}"),
    *("[", "]", "&a", "*a", "!!python/object:os.system", "format: flac", "loops: [4]", "\t", "? ", "|", "'", '"'),
    *("- Invert", "output: y", "salvage: true", "\ud83d", "\x00", "nan", ".inf", "#", "<<: *a"),
)
_texts = st.one_of(st.text(alphabet=st.characters(), max_size=30), st.sampled_from(_ODD))
# Without subnormal numbers: a library that another test has loaded may have told the processor to flush them to zero.
_scalars = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_subnormal=False), _texts)
_values = st.recursive(
    _scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_texts, inner, max_size=3), max_leaves=8
)
_keys = st.sampled_from([*Job.model_fields, "schema", "stretch"]) | _texts
_yaml = st.lists(
    st.sampled_from(_PIECES) | st.text(alphabet=string.printable, max_size=6), max_size=30
).map("".join)  # fmt: skip


def check_sentence(error: Exception) -> None:
    sentence = str(error)
    assert sentence and "Input should" not in sentence and "Traceback" not in sentence


def read_job(changes: dict[str, Any]) -> None:
    """A job that can be read can be written and read again."""
    try:
        job = Job.from_json(json.dumps(GOOD | changes), "job.json")
    except JobFormatError as error:
        check_sentence(error)
        return
    assert Job.from_json(job.to_json(), "job.json") == job


def read_yaml(text: str, folder: Path) -> None:
    path = folder / "document.yaml"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    for read, kind in ((read_preset, PresetError), (load_folders, SettingsError)):
        try:
            read(path)
        except kind as error:
            check_sentence(error)
            assert isinstance(error, DocumentError)


@given(st.dictionaries(_keys, _values, max_size=4))
@example({"deliver": {"track": "Mix \ud83d"}})
@example({"preset": "\ud83d"})
@example({"source": {"path": "/music/\x00.wav"}})
@example({"output": "/music/\ud83d"})
@example({"deliver": {"deep": [[[[[[]]]]]]}})
@example({"schema": 2})
@example({"delivery": {"format": ["flac"]}})
@example({"delivery": {"loudness_lufs": float("nan")}})
@example({"stretch": 1})
@settings(max_examples=200)
def test_a_job_is_read_or_refused(changes):
    read_job(changes)


@given(_yaml)
@example("VST3: {path: ./evil.vst3}")
@example("a: &a [*a, *a]")
@example("- " * 3000)
@example("folders: [{path: x, output: y, delivery: {format: {}}}]")
@example("outputs: []\ndelivery: {format: FLAC}")
@example("\ud83d: 1")
@settings(max_examples=200)
def test_a_preset_and_a_list_of_folders_are_read_or_refused(tmp_path_factory, text):
    read_yaml(text, _folder(tmp_path_factory))


@pytest.mark.long
@given(st.dictionaries(_keys, _values, max_size=4), _yaml)
@settings(max_examples=LONG)
def test_twenty_thousand_documents_are_read_or_refused(tmp_path_factory, changes, text):
    read_job(changes)
    read_yaml(text, _folder(tmp_path_factory))


def _folder(factory: pytest.TempPathFactory) -> Path:
    """One folder for all examples of a run."""
    folder = factory.getbasetemp() / "fuzzed"
    folder.mkdir(exist_ok=True)
    return folder
