"""Conversations with a child: whatever it does instead of answering is one of two errors, and it is gone afterwards."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator

import pytest
from timeouts import PATIENCE_S

from tsbs_daw.core.child import ChildFailed, ChildTimeout
from tsbs_daw.core.conversation import GARBLED, Conversation

START = """
import os, sys, time
from tsbs_daw.core.child import keep_stdout
from tsbs_daw.core.conversation import receive, send
answers = keep_stdout()
"""
ECHO = "while True:\n    send(answers, *receive(sys.stdin.buffer))\n"


@pytest.fixture
def talk() -> Iterator:
    opened: list[Conversation] = []

    def start(code: str, **options: int) -> Conversation:
        opened.append(Conversation([sys.executable, "-c", START + code], **options))
        return opened[-1]

    yield start
    for conversation in opened:
        conversation.close()
        assert conversation.process.poll() is not None


@pytest.mark.parametrize("size", [0, 1, 70_000, 3_000_000])
def test_a_message_comes_back_as_it_was_sent(talk, size: int):
    conversation, body = talk(ECHO), os.urandom(size)
    for tag in (b"A", b"B"):
        conversation.send(tag, body, limit_s=PATIENCE_S)
        assert conversation.receive(PATIENCE_S) == (tag, body)


def test_what_a_child_prints_is_kept_for_the_log_and_does_not_disturb_it(talk):
    conversation = talk("print('from Python')\nos.system('echo from C')\nsend(answers, b'R')\n", log_lines=2)
    assert conversation.receive(PATIENCE_S) == (b"R", b"")
    with pytest.raises(ChildFailed) as caught:
        conversation.receive(PATIENCE_S)
    assert (caught.value.exit_text, caught.value.code) == ("exit code 0", 0)
    assert {"from Python", "from C"} == set(caught.value.log.splitlines())


@pytest.mark.parametrize(
    ("code", "exit_text"),
    [
        ("os._exit(3)", "exit code 3"),
        ("os.kill(os.getpid(), 9)", "signal SIGKILL"),
        ("os.abort()", "signal SIGABRT"),
        ("answers.write(b'x'); answers.flush(); os._exit(4)", "exit code 4"),  # half a header
        ("answers.write(b'B' + bytes([9, 0, 0, 0]) + b'part'); answers.flush(); os._exit(5)", "exit code 5"),
    ],
)
@pytest.mark.skipif(os.name != "posix", reason="signals")
def test_a_child_that_ends_early_is_one_error_that_says_how(talk, code: str, exit_text: str):
    with pytest.raises(ChildFailed) as caught:
        talk(code).receive(PATIENCE_S)
    assert caught.value.exit_text == exit_text


def test_a_message_of_an_absurd_length_is_refused_before_it_is_read(talk):
    conversation = talk("answers.write(b'B' + bytes([255] * 4)); answers.flush(); time.sleep(600)", largest_bytes=1000)
    with pytest.raises(ChildFailed) as caught:
        conversation.receive(PATIENCE_S)
    assert caught.value.exit_text == GARBLED
    assert conversation.process.poll() is not None


@pytest.mark.parametrize("told", ["", "send(answers, b'R')\n"])
def test_a_silent_child_is_killed(talk, told: str):
    conversation = talk(told + "time.sleep(600)")
    if told:
        conversation.receive(PATIENCE_S)
    with pytest.raises(ChildTimeout, match=r"no answer within 0\.2 s"):
        conversation.receive(0.2)
    assert conversation.process.poll() is not None


@pytest.mark.skipif(os.name != "posix", reason="signals")
def test_a_child_that_takes_nothing_is_killed(talk):
    conversation = talk("send(answers, b'R')\ntime.sleep(600)")
    conversation.receive(PATIENCE_S)
    os.kill(conversation.process.pid, signal.SIGSTOP)
    with pytest.raises(ChildTimeout):
        conversation.send(b"B", bytes(5_000_000), limit_s=0.2)  # more than a pipe holds
    assert conversation.process.poll() == -signal.SIGKILL


def test_sending_to_a_child_that_has_ended_says_so(talk):
    conversation = talk("os._exit(3)")
    conversation.process.wait(PATIENCE_S)
    with pytest.raises(ChildFailed, match="exit code 3"):
        conversation.send(b"B", bytes(100), limit_s=PATIENCE_S)


def test_closing_twice_is_allowed(talk):
    conversation = talk(ECHO)
    conversation.close()
    conversation.close()
