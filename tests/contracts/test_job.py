"""Requests and results in the schema of whoever asks: version 1 is answered as it always was."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tsbs_daw.contracts.job import Heartbeat, Job, Progress, Result, State
from tsbs_daw.core.errors import JobFormatError

REQUEST_1 = {
    "schema": 1,
    "id": "20260131-120000-9f3c",
    "source": {"path": "/music/mix.wav", "start_samples": 32193, "length_samples": 48510},
    "output": "/music/stems",
    "deliver": {"track": "Mix"},
}
RESULT_1_KEYS = {
    "schema", "id", "state", "error", "retryable", "folder", "session", "manifest", "stems", "sample_rate", "samples",
    "time_reference_samples", "warnings", "deliver", "finished_unix_s",
}  # fmt: skip


def result(schema: int) -> Result:
    return Result(schema=schema, id="a", state=State.DONE, analysis=Path("/music/stems/mix/analysis.json"))


def test_a_request_of_version_1_is_read_and_its_result_has_the_keys_of_version_1():
    job = Job.from_json(json.dumps(REQUEST_1), "request")
    assert job.schema_ == 1 and json.loads(job.to_json())["schema"] == 1
    answer = json.loads(result(job.schema_).to_json())
    assert answer["schema"] == 1 and set(answer) == RESULT_1_KEYS


def test_a_result_of_version_2_names_the_analysis():
    job = Job.from_json(json.dumps(REQUEST_1 | {"schema": 2}), "request")
    answer = json.loads(result(job.schema_).to_json())
    assert answer["schema"] == 2 and answer["analysis"] == "/music/stems/mix/analysis.json"
    assert set(answer) == RESULT_1_KEYS | {"analysis"}


@pytest.mark.parametrize("schema", [1, 2])
def test_a_result_goes_there_and_back(schema: int):
    there = result(schema)
    back = Result.from_json(there.to_json(), "result")
    assert back.schema_ == schema and back.state is State.DONE
    assert back.analysis == (there.analysis if schema == 2 else None)


@pytest.mark.parametrize("schema", [0, 3, "2", None, True, 1.5])
def test_another_version_is_refused_with_the_ones_that_are_understood(schema: object):
    with pytest.raises(JobFormatError, match="understands schema 1 and 2"):
        Job.from_json(json.dumps(REQUEST_1 | {"schema": schema}), "request")


@pytest.mark.parametrize("kind", [Progress, Heartbeat])
def test_progress_and_heartbeat_stay_as_they_were(kind: type):
    with pytest.raises(JobFormatError, match="understands schema 1;"):
        kind.from_json(json.dumps({"schema": 2}), "document")
