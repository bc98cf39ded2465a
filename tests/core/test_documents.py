"""YAML from anyone: what is refused, where, and after how much reading."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from tsbs_daw.core import documents as document
from tsbs_daw.core.documents import DEEPEST, LARGEST_BYTES, MOST_NODES, Document
from tsbs_daw.core.errors import PresetError


def refusal(data: bytes) -> PresetError:
    with pytest.raises(PresetError) as caught:
        Document(Path("song.yaml")).parse(data)
    return caught.value


@pytest.mark.parametrize(
    ("data", "line", "column", "what"),
    [
        (b"a: &x [lol, lol]\nb: [*x, *x]", 1, 4, "anchors"),
        (b"a: 1\nb: *x", 2, 4, "anchors"),
        (b"a: !!python/object/apply:os.system ['echo']", 1, 4, "tags"),
        (b"a: !thing 1", 1, 4, "tags"),
        (b"a: 1\n---\nb: 1", 2, 1, "document"),
        (b"a: [1\n", 2, 1, "not valid YAML"),
        (b"a:\n\tb: 1", 2, 1, "indent with spaces"),
        (b"a: \x07", 1, 4, "U+0007"),
        (b"- a\n- b", 1, 1, "is a mapping"),
        (b"", 1, 1, "empty"),
        (b"# nothing\n", 1, 1, "empty"),
        (b"a: " + b"[" * 20_000, 1, 4 + DEEPEST, "nested"),
        (b"{a: " * 10_000, 1, 1 + 4 * DEEPEST, "nested"),
        (b"- " * 10_000, 1, 1 + 2 * DEEPEST, "nested"),
    ],
)
def test_refused_with_its_place(data: bytes, line: int, column: int, what: str):
    error = refusal(data)
    assert (error.line, error.column) == (line, column)
    assert what in str(error) and str(error).startswith(f"song.yaml:{line}:{column}: ")


def test_not_utf8_is_refused_with_its_line():
    error = refusal(b"a: 1\nb: \xff\n")
    assert error.line == 2 and "UTF-8" in str(error)


def test_a_byte_order_mark_is_no_harm():
    assert Document(Path("song.yaml")).parse(b"\xef\xbb\xbfa: 1").value[0][0].value == "a"


def test_too_large_is_refused_unread():
    assert "64 KiB" in str(refusal(b"#" * (LARGEST_BYTES + 1)))


BOMBS = {
    "billion laughs": b"a: &a [x, x]\n" + b"".join(b"b%d: &b%d [*a, *a]\n" % (n, n) for n in range(1000)),
    "brackets": b"outputs: " + b"[" * 60_000,
    "braces": b"{a: " * 16_000,
    "dashes": b"- " * 32_000,
    "questions": b"? " * 32_000,
    "steps": b"".join(b" " * n + b"a:\n" for n in range(340)),
    "wide list": b"outputs: [" + b"a," * 32_000 + b"]",
    "wide mapping": b"".join(b"k%d: 1\n" % n for n in range(7000)),
}


@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_is_put_down_before_it_is_read_to_its_end(name: str, monkeypatch: pytest.MonkeyPatch):
    """The work is bounded by what is allowed, not by what is there: so many tokens, and no more."""
    tokens = 0
    take = yaml.scanner.Scanner.fetch_more_tokens

    def counted(self):
        nonlocal tokens
        tokens += 1
        return take(self)

    monkeypatch.setattr(yaml.scanner.Scanner, "fetch_more_tokens", counted)
    refusal(BOMBS[name][:LARGEST_BYTES])
    assert tokens < 5 * MOST_NODES


def test_scalars_stay_text():
    root = Document(Path("song.yaml")).parse(b"a: yes\nb: 010\nc: 1:30\nd: 2020-01-01\ne: ~")
    assert [value.value for _, value in root.value] == ["yes", "010", "1:30", "2020-01-01", "~"]


@pytest.mark.parametrize(
    ("text", "number"), [("90", 90), ("-2.5", -2.5), ("+3", 3), ("1e3", 1000), (".5", 0.5), ("010", 10), ("-9 dB", -9)]
)
def test_numbers_are_decimal(text: str, number: float):
    node = yaml.ScalarNode(None, text, yaml.Mark("", 0, 0, 0, None, 0))
    assert Document(Path("song.yaml")).number(node, "the gain", unit="dB") == number


@pytest.mark.parametrize("text", [".nan", "nan", "-.inf", "Infinity", "1e999", "0x10", "1_000", "1:30", "ten", "9 Hz"])
def test_what_is_not_a_finite_decimal_number_is_refused(text: str):
    node = yaml.ScalarNode(None, text, yaml.Mark("", 0, 3, 7, None, 0))
    with pytest.raises(PresetError, match=r"^song\.yaml:4:8: the gain must be a (finite )?number, not "):
        Document(Path("song.yaml")).number(node, "the gain", unit="dB")


def test_the_limits_leave_room_for_a_large_preset():
    effect = "          - PeakFilter: {cutoff_frequency_hz: 440, gain_db: 1, q: 1}\n"
    outputs = "".join(f"  - name: out {n}\n    from: [vocals, drums]\n    chain:\n{effect * 12}" for n in range(12))
    assert document.Document(Path("song.yaml")).parse(b"outputs:\n" + outputs.encode())
