"""Whatever bytes a file holds: it gives sound or a reason, in one printable line that names the file.

Hypothesis damages good files of each format. What it finds is kept in .hypothesis/ and tried first in the next run; the
damaged file itself is written to build/fuzz/, from where it goes into tests/audio/corpus/, to be read in every run.
"""

from __future__ import annotations

import hashlib
import itertools
from pathlib import Path

import pytest
import signals
from harness.audio_files import aac
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tsbs_daw.audio.probe import inspect
from tsbs_daw.audio.read import open_audio
from tsbs_daw.core.errors import AudioError

CORPUS = sorted((Path(__file__).parent / "corpus").glob("*.*"))
FOUND = Path(__file__).parents[2] / "build" / "fuzz"
LENGTH = 12_000
MOST_SAMPLES = 1_000_000  # no file here is long enough to hold more
LONG = 10_000
ENCODED = {
    ".wav": ("WAV", "FLOAT"),
    ".w64": ("W64", "PCM_24"),
    ".rf64": ("RF64", "PCM_16"),
    ".aiff": ("AIFF", "PCM_24"),
    ".au": ("AU", "PCM_16"),
    ".caf": ("CAF", "PCM_16"),
    ".flac": ("FLAC", "PCM_16"),
    ".ogg": ("OGG", "VORBIS"),
    ".opus": ("OGG", "OPUS"),
    ".mp3": ("MP3", "MPEG_LAYER_III"),
}
_SOUND = signals.sweep(LENGTH) + signals.noise(LENGTH, amplitude=0.05)
SEEDS = {
    ending: signals.encoded(_SOUND, 48000 if ending == ".opus" else 44100, *kind) for ending, kind in ENCODED.items()
}
SEEDS |= {".aac": aac(), ".m4a": aac(container="mp4")}
_ODD_NUMBERS = (b"\xff\xff\xff\xff", b"\0\0\0\0", b"\x7f\xff\xff\xff", b"\xff\xff\xff\x7f", b"\0\0\0\x80", b"\1\0\0\0")

# A place in a file, in millionths of its length; most often in its header.
_headers = st.integers(0, 127).map(lambda byte: -1 - byte)
_places = st.one_of(_headers, st.integers(0, 999_999))
_lengths = st.one_of(st.integers(1, 16), st.integers(1, 5000))

Damage = tuple[str, int, object]

damages = st.one_of(
    st.tuples(st.just("flip"), _places, st.integers(1, 255)),
    st.tuples(st.just("overwrite"), _places, st.binary(min_size=1, max_size=12) | st.sampled_from(_ODD_NUMBERS)),
    st.tuples(st.just("insert"), _places, st.binary(min_size=1, max_size=64)),
    st.tuples(st.just("cut"), _places, st.none()),
    st.tuples(st.just("delete"), _places, _lengths),
    st.tuples(st.just("double"), _places, _lengths),
    st.tuples(st.just("behead"), _places, st.sampled_from(sorted(SEEDS))),
)
files = st.tuples(st.sampled_from(sorted(SEEDS)), st.lists(damages, min_size=1, max_size=6))


def damaged(source: bytes, deeds: list[Damage]) -> bytes:
    """A file after all that was done to it, in order."""
    content = bytearray(source)
    for name, place, value in deeds:
        at = min(-1 - place if place < 0 else place * len(content) // 1_000_000, max(len(content) - 1, 0))
        if name == "flip" and content:
            content[at] ^= value
        elif name == "overwrite":
            content[at : at + len(value)] = value
        elif name == "insert":
            content[at:at] = value
        elif name == "cut":
            del content[at:]
        elif name == "delete":
            del content[at : at + value]
        elif name == "double":
            content[at:at] = content[at : at + value]
        elif name == "behead":  # the start of a file of another format, and the rest of this one
            content[:at] = SEEDS[value][:at]
    return bytes(content)


def check(path: Path, *, salvage: bool, decode: bool) -> bool:
    """Read a file as far as it goes. Returns: whether it was refused"""
    try:
        header = inspect(path, salvage=salvage)
        assert header.samples is None or header.samples <= MOST_SAMPLES
        if decode:
            with open_audio(path, salvage=salvage) as reader:
                assert sum(block.shape[1] for block in reader.blocks()) <= MOST_SAMPLES
    except AudioError as error:
        assert f"'{path}'" in str(error) and str(error).isprintable()
        return True
    return False


_numbers = itertools.count()


def check_content(folder: Path, ending: str, content: bytes, *, salvage: bool, decode: bool) -> None:
    """Read a damaged file; keep it where that goes wrong."""
    path = folder / f"{next(_numbers)}{ending}"
    path.write_bytes(content)
    try:
        check(path, salvage=salvage, decode=decode)
    except BaseException:
        FOUND.mkdir(parents=True, exist_ok=True)
        kept = FOUND / f"{hashlib.sha256(content).hexdigest()[:12]}{ending}"
        kept.write_bytes(content)
        print(f"the file is kept as {kept}; move it to tests/audio/corpus/ under a name that says what it is")
        raise
    finally:
        path.unlink(missing_ok=True)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fuzzed")


@given(files, st.booleans())
@example((".wav", [("cut", -1, None)]), False)
@example((".flac", [("behead", 500_000, ".mp3")]), True)
@example((".mp3", [("double", 300_000, 5000), ("cut", 900_000, None)]), True)
@settings(max_examples=400)
def test_the_header_of_a_damaged_file_gives_a_length_or_a_reason(folder, file, salvage):
    ending, deeds = file
    check_content(folder, ending, damaged(SEEDS[ending], deeds), salvage=salvage, decode=False)


@given(files, st.booleans())
@settings(max_examples=30)
def test_a_damaged_file_gives_sound_or_a_reason(folder, file, salvage):
    ending, deeds = file
    check_content(folder, ending, damaged(SEEDS[ending], deeds), salvage=salvage, decode=True)


@pytest.mark.long
@pytest.mark.timeout(7200)
@given(files, st.booleans())
@settings(max_examples=LONG)
def test_ten_thousand_damaged_files_give_sound_or_a_reason(folder, file, salvage):
    ending, deeds = file
    check_content(folder, ending, damaged(SEEDS[ending], deeds), salvage=salvage, decode=True)


@pytest.mark.parametrize("salvage", [False, True], ids=["strict", "salvage"])
@pytest.mark.parametrize("path", CORPUS, ids=lambda path: path.name)
def test_what_was_once_found_gives_sound_or_a_reason(path, salvage):
    check(path, salvage=salvage, decode=True)


def test_every_kind_of_damage_changes_a_file_and_leaves_some_readable():
    """Else the fuzzing is not worth its time: too weak, or so strong that every file is refused at once."""
    source = SEEDS[".wav"]
    for deed in (
        ("flip", 10, 1),
        ("overwrite", 10, b"\1\2"),
        ("insert", 10, b"a"),
        ("delete", 10, 5),
        ("cut", 10, None),
    ):
        assert damaged(source, [deed]) != source
    assert len(damaged(source, [("double", 500_000, 100)])) == len(source) + 100
    assert damaged(source, [("behead", 1000, ".flac")])[:4] == b"fLaC"
