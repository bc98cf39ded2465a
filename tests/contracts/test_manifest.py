"""The manifest: valid JSON whatever was measured, and an identity that tells runs apart."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import ValidationError

from tsbs_daw.contracts.job import Treatment
from tsbs_daw.contracts.manifest import (
    AudioFile,
    Manifest,
    NamedHash,
    SourceEntry,
    identity_of,
    read_manifest,
    versions,
)
from tsbs_daw.core.errors import JobFormatError

RUN = {
    "source_sha256": "a" * 64,
    "model_sha256": "b" * 64,
    "preset_sha256": "c" * 64,
    "treatment": Treatment(),
    "start_samples": 0,
    "length_samples": None,
}


def manifest(**changes) -> Manifest:
    source = SourceEntry(
        path=changes.pop("path", "/music/song.wav"),
        sha256="a" * 64,
        container="WAV",
        subtype="PCM_24",
        sample_rate=48000,
        channels=2,
        samples=480000,
    )
    fields = {
        "job": "job-1",
        "song": "song",
        "identity": identity_of(**RUN),
        "source": source,
        "model": NamedHash(name="default", sha256="b" * 64),
        "preset": NamedHash(name="none", sha256="c" * 64),
        "stage": "full",
        "null": False,
        "salvage": False,
        "stems": (AudioFile(name="vocals", kind="stem", file="vocals.wav", size_bytes=100, rms_db=-20.5),),
    }
    return Manifest(**{**fields, **changes})


def test_it_comes_back_as_it_was_written():
    written = manifest(residual_db=-101.25, timings_s={"read": 0.5}, warnings=("the file is cut",), device="cpu")
    assert Manifest.from_json(written.to_json(), "manifest.json") == written
    assert json.loads(written.to_json())["schema"] == 1


@pytest.mark.parametrize("level", [-math.inf, math.inf, math.nan])
def test_what_json_cannot_say_becomes_null(level: float):
    entry = AudioFile(
        name="v",
        kind="stem",
        file="v.wav",
        size_bytes=1,
        sample_peak_db=level,
        true_peak_db=level,
        rms_db=level,
        loudness_lufs=level,
    )
    text = manifest(stems=(entry,), residual_db=level).to_json()
    found = json.loads(text, parse_constant=lambda constant: pytest.fail(f"{constant} in the manifest"))
    assert found["residual_db"] is None
    assert [found["stems"][0][key] for key in ("sample_peak_db", "true_peak_db", "rms_db", "loudness_lufs")] == [
        None
    ] * 4


def test_a_gain_or_a_timing_that_is_not_finite_is_a_bug_and_refused():
    for change in ({"gain_db": math.inf}, {"timings_s": {"read": math.nan}}):
        with pytest.raises(ValidationError):
            manifest(**change)


def test_a_source_path_that_is_not_utf8_is_shown_and_written():
    found = json.loads(manifest(path=Path("/music/caf\udce9 Дорога.wav")).to_json())
    assert found["source"]["path"] == "/music/caf\\xe9 Дорога.wav"


def test_unknown_keys_and_other_schemas_are_refused():
    known = json.loads(manifest().to_json())
    for change in ({"volume": 11}, {"schema": 2}):
        with pytest.raises(JobFormatError):
            Manifest.from_json(json.dumps({**known, **change}), "manifest.json")


def test_identity_changes_with_everything_that_decides_the_result():
    same = identity_of(**RUN)
    assert same == identity_of(**RUN) and len(same) == 64
    changes = {
        "source_sha256": "d" * 64,
        "model_sha256": "d" * 64,
        "preset_sha256": "d" * 64,
        "treatment": Treatment(null=True),
        "start_samples": 1,
        "length_samples": 1,
    }
    assert changes.keys() == RUN.keys()
    runs = [{**RUN, key: value} for key, value in changes.items()]
    runs += [{**RUN, "treatment": treatment} for treatment in (Treatment(stage="mask"), Treatment(salvage=True))]
    assert len({same} | {identity_of(**run) for run in runs}) == 1 + len(runs)


def test_identity_without_a_delivery_is_that_of_versions_that_knew_of_none():
    known = "e31cdf43e57164feb35ea83e"
    assert identity_of(**RUN) == identity_of(**RUN, delivery=None) != identity_of(**RUN, delivery="{}")
    assert identity_of(**RUN).startswith(known)
    assert identity_of(**RUN, delivery='{"format": "mp3"}') != identity_of(**RUN, delivery='{"format": "wav16"}')


def test_identity_without_a_precision_is_that_of_versions_that_knew_no_choice():
    identities = {identity_of(**RUN, precision=precision) for precision in (None, "float32", "bfloat16")}
    assert len(identities) == 3 and identity_of(**RUN) in identities


def test_a_manifest_of_an_earlier_version_is_read():
    known = json.loads(manifest().to_json())
    new = {"artist", "title", "format", "sessions", "analysis", "others", "precision"}
    assert new <= known.keys()
    text = json.dumps({key: value for key, value in known.items() if key not in new})
    found = Manifest.from_json(text, "manifest.json")
    assert (found.sessions, found.analysis, found.others, found.format) == (None, None, (), "wav32f")


def test_two_processes_agree_on_the_identity():
    imports = "from tsbs_daw.contracts.manifest import identity_of; from tsbs_daw.contracts.job import Treatment"
    code = f"{imports}; print(identity_of(**{RUN!r}))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == identity_of(**RUN)


def test_versions_name_the_program_and_python_without_importing_torch():
    module = "tsbs_daw.contracts.manifest"
    code = f"import sys; from {module} import versions; versions(); assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
    assert {"tsbs-daw", "torch", "numpy", "python"} <= versions().keys()


@pytest.mark.parametrize("text", [None, "", "{", "[]", '{"schema": 1}', '{"schema": 99}', "\x00" * 100])
def test_a_folder_without_a_readable_manifest_has_none(tmp_path: Path, text: str | None):
    if text is not None:
        (tmp_path / "manifest.json").write_text(text)
    assert read_manifest(tmp_path) is None
