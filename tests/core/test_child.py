"""Child processes: an answer, a refusal, or one exception for everything else."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest

from tsbs_daw.core import child

HEAD = """
import os, time
from tsbs_daw.core import child
from tsbs_daw.core.errors import AudioError
def work(request):
    {}
child.answer(work)
"""


def command(code: str) -> list[str]:
    return [sys.executable, "-c", HEAD.format(code)]


def test_a_question_is_answered_whatever_libraries_print():
    found = child.ask(command("print('noise'); os.write(2, b'noise'); return [request, 1]"), {"a": "ü"}, limit_s=60)
    assert found == [{"a": "ü"}, 1]


def test_an_error_of_ours_is_a_refusal_with_its_sentence():
    with pytest.raises(child.ChildRefused, match=r"^It is no song\.$"):
        child.ask(command("raise AudioError('It is no song.')"), {}, limit_s=60)


@pytest.mark.parametrize(
    ("code", "exit_text"),
    [("os._exit(3)", "exit code 3"), ("raise ValueError('why')", "exit code 1"), ("return object()", "exit code 1")],
)
def test_everything_else_is_a_failure_with_the_end_of_its_log(code, exit_text):
    with pytest.raises(child.ChildFailed) as caught:
        child.ask(command(f"os.write(2, b'last words'); {code}"), {}, limit_s=60)
    assert caught.value.exit_text == exit_text and "last words" in caught.value.log


def test_one_that_hangs_is_killed():
    with pytest.raises(child.ChildTimeout, match="within 1 s"):
        child.ask(command("time.sleep(600)"), {}, limit_s=1.0)


def test_what_the_waiting_parent_raises_ends_the_child():
    def waiting(elapsed_s: float) -> None:
        raise KeyboardInterrupt

    started = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        child.ask(command("time.sleep(600)"), {}, limit_s=600.0, waiting=waiting)
    assert time.monotonic() - started < 300


def test_a_child_ends_with_its_parent():
    process = subprocess.Popen(command("time.sleep(600)"), stdin=subprocess.PIPE)
    process.stdin.write(b'{"answer": "/nowhere"}\n')
    process.stdin.close()
    assert process.wait(300) == 0


def test_a_child_computes_with_one_thread_and_sees_no_unwanted_variable(monkeypatch):
    monkeypatch.setenv("UNWANTED", "1")
    found = child.environment(threads=1, without=["UNWANTED"], extra={"WANTED": "1"})
    assert found["OMP_NUM_THREADS"] == "1" and "UNWANTED" not in found and found["WANTED"] == "1"
    assert "UNWANTED" in child.environment() and "PATH" in found


def test_an_end_is_described_for_people():
    assert child.describe_exit(None) == "still running" and child.describe_exit(2) == "exit code 2"
    if os.name != "nt":
        assert child.describe_exit(-signal.SIGKILL) == "signal SIGKILL"
