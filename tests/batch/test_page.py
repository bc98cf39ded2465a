from __future__ import annotations

import base64
import hashlib
import json
import math
import os
import re
from html.parser import HTMLParser
from urllib.parse import unquote_to_bytes, urljoin, urlsplit

import pytest
from batch.page_crates import HOSTILE, HOSTILE_FOLDER, analysis, catalogue, data_of, entry, mixed_crate

from tsbs_daw.batch.page import NAME, embedded, relative_url, write_page
from tsbs_daw.contracts.catalogue import SongEntry
from tsbs_daw.contracts.manifest import AudioFile
from tsbs_daw.core.errors import OutputError


class Elements(HTMLParser):
    """Every element with its attributes, and the text of the two kinds that hold programs and styles."""

    def __init__(self, text: str):
        super().__init__()
        self.found: list[tuple[str, dict]] = []
        self.inside: dict[str, list[str]] = {"script": [], "style": []}
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))

    def handle_data(self, data):
        if self.found and self.found[-1][0] in self.inside and data.strip():
            self.inside[self.found[-1][0]].append(data)


@pytest.fixture(scope="module")
def mixed(tmp_path_factory):
    out = tmp_path_factory.mktemp("crate")
    return write_page(mixed_crate(out), out).read_text(encoding="utf-8")


def test_the_page_may_run_and_load_nothing_but_itself_and_sounds(mixed):
    elements = Elements(mixed)
    policy = next(a["content"] for _, a in elements.found if a.get("http-equiv") == "Content-Security-Policy")
    rules = dict(rule.split(" ", 1) for rule in policy.split("; "))
    assert rules["default-src"] == rules["base-uri"] == rules["form-action"] == "'none'"
    for kind, rule in (("style", "style-src"), ("script", "script-src")):
        digest = hashlib.sha256(elements.inside[kind][-1].encode("utf-8")).digest()
        assert rules[rule] == f"'sha256-{base64.b64encode(digest).decode()}'"
    assert rules["media-src"] == "'self' file:"
    assert set(rules) == {"default-src", "style-src", "script-src", "media-src", "base-uri", "form-action"}


def test_no_address_in_the_page_leads_anywhere_else(mixed):
    assert not re.search(r"(?<!file)://|javascript:|\bdata:\w", mixed)
    for tag, attributes in Elements(mixed).found:
        assert not {"src", "style", "action", "ping", "srcset"} & set(attributes), tag
        assert not any(name.startswith("on") for name in attributes), tag
        assert attributes.get("href", "#").startswith("#"), tag


def test_a_hostile_name_is_data_and_nothing_else(mixed):
    assert mixed.count("<script") == 2 and "<img" not in mixed
    assert data_of(mixed)["songs"][1]["title"] == HOSTILE
    assert mixed.isascii() or not re.search(r"[\u202a-\u202e\u2028\u2029\ud800-\udfff]", mixed)


@pytest.mark.parametrize("text", ["</script>", "<!--<script>", "]]>", "\u2028", "\udcff\ud83d", '"\\\n\0', "@STYLE@"])
def test_embedded_text_comes_out_as_it_went_in(text):
    inside = embedded({text: [text]})
    assert not set(inside) & set("<>&") and inside.isascii()
    assert json.loads(inside) == {text: [text]}


@pytest.mark.parametrize(
    "file",
    [
        "a/b.wav",
        HOSTILE_FOLDER + "/x.wav",
        "//elsewhere/x",
        "javascript:alert(1)",
        "http://a/b",
        "/etc/passwd",
        "a/../../b",
    ],
)
def test_a_files_url_stays_below_the_page(file):
    base = "file:///crates/out/catalogue.html"
    assert urlsplit(urljoin(base, relative_url(file))).path.startswith("/crates/out/")
    assert urlsplit(relative_url(file))[:2] == ("", "") and urlsplit(relative_url(file))[3:] == ("", "")


@pytest.mark.skipif(os.name == "nt", reason="names are no bytes there")
def test_a_name_that_is_no_utf_8_comes_back_byte_for_byte(tmp_path):
    name = os.fsdecode(b"caf\xe9.wav")
    assert unquote_to_bytes(relative_url(name)) == b"./caf\xe9.wav"
    song = SongEntry(source=name, state="done", folder=name, files=(AudioFile(name=name, kind="stem", file=name),))
    assert (
        data_of(write_page(catalogue(song), tmp_path).read_text(encoding="utf-8"))["songs"][0]["title"] == "caf\udce9"
    )


def test_figures_that_json_has_not_are_left_out(tmp_path):
    song = entry("odd", analysis=analysis(math.inf, None, lufs=-math.inf))
    found = data_of(write_page(catalogue(song), tmp_path).read_text(encoding="utf-8"))["songs"][0]
    assert found["tempo"] is None and found["loudness"]["lufs"] is None


def test_doubtful_figures_come_with_their_reason(mixed):
    half = next(song for song in data_of(mixed)["songs"] if song["title"] == "Half")
    assert set(half["doubts"]) == {"tempo", "key", "meter"}
    assert "30.2 or 121.0 BPM" in half["doubts"]["tempo"]
    assert data_of(mixed)["songs"][0]["doubts"] == {}


def test_every_warning_is_given_once(tmp_path):
    notes = ("The tempo is doubtful; 60.0 or 240.0 BPM may be meant.", "The tempo changes.")
    heard = analysis(doubtful=True).model_copy(update={"notes": notes})
    song = entry("odd", analysis=heard, warnings=(*notes, "The loudness is missed."))
    found = data_of(write_page(catalogue(song), tmp_path).read_text(encoding="utf-8"))["songs"][0]
    assert found["warnings"] == ["The loudness is missed."] and found["notes"] == ["The tempo changes."]
    assert set(found["doubts"]) == {"tempo", "key", "meter"}


def test_a_file_that_is_not_there_is_shown_as_missing(tmp_path):
    files = (
        AudioFile(name="vocals", kind="stem", file="gone/vocals.wav"),
        AudioFile(name="x", kind="stem", file="../x"),
    )
    song = entry("gone", folder="gone", files=files)
    found = data_of(write_page(catalogue(song), tmp_path).read_text(encoding="utf-8"))["songs"][0]["files"]
    assert [file["problem"] for file in found] == ["the file is missing"] * 2


def test_what_there_is_to_open_is_linked(tmp_path):
    made = {"loops": 24, "loops_folder": "a/b/loops", "stem_mp4": "a/b/b.stem.mp4"}
    song = entry("b", folder="a/b", sessions=("a/b/b.RPP", "a/b/b.dawproject"), **made)
    found = data_of(write_page(catalogue(song, entry("bare")), tmp_path).read_text(encoding="utf-8"))
    assert {link["name"]: link["url"] for link in found["songs"][0]["links"]} == {
        "Folder": "./a/b/",
        "b.RPP": "./a/b/b.RPP",
        "b.dawproject": "./a/b/b.dawproject",
        "24 loops": "./a/b/loops/",
        "b.stem.mp4": "./a/b/b.stem.mp4",
    }
    assert found["songs"][1]["links"] == [] and found["links"] == []


def test_the_session_and_the_table_of_the_crate_are_linked_once_they_are_there(tmp_path):
    crate = catalogue(entry("one"), crate="Fri/day")
    for name in (crate.session, "catalogue.csv"):
        (tmp_path / name).touch()
    found = data_of(write_page(crate, tmp_path).read_text(encoding="utf-8"))
    assert [link["url"] for link in found["links"]] == [f"./{crate.session}", "./catalogue.csv"]
    assert crate.session.endswith(".RPP") and "/" not in crate.session


def test_a_second_page_replaces_the_first_and_leaves_nothing_behind(tmp_path):
    write_page(catalogue(entry("one")), tmp_path)
    path = write_page(catalogue(entry("one"), entry("two")), tmp_path)
    assert [song["title"] for song in data_of(path.read_text(encoding="utf-8"))["songs"]] == ["one", "two"]
    assert [file.name for file in tmp_path.iterdir()] == [NAME]


def test_a_page_that_cannot_be_written_is_an_error_in_one_sentence(tmp_path):
    with pytest.raises(OutputError, match=r"Cannot write '.*catalogue\.html'"):
        write_page(catalogue(entry("one")), tmp_path / "not there")


def test_an_empty_crate_has_a_page(tmp_path):
    assert data_of(write_page(catalogue(), tmp_path).read_text(encoding="utf-8"))["songs"] == []
