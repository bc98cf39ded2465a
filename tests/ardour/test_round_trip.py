"""Ardour itself: a region goes to the real daemon, and its stems come back as tracks. Read in the saved session."""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import signals
import soundfile
from ardour.stage import RATE, VERSION, SavedTrack, Studio, missing, press_in_window, saved_tracks
from cli.program import environment, run
from programs import process
from timeouts import PATIENCE_S

pytestmark = [
    pytest.mark.skipif(
        bool(missing()), reason=f"Ardour {VERSION} and Xvfb are not installed: no {', '.join(missing())}"
    ),
    pytest.mark.timeout(3600),
]

# As driver.lua trims it.
MIX_AT, TRIMMED, SAMPLES, SHORTER = 96_000, 24_001, 96_007, 48_005
STEMS = ["vocals", "drums", "bass", "other"]
PICTURE = "TSBS_DAW_ARDOUR_PICTURE"  # names a file: make the picture of the README anew
DAEMON = [sys.executable, "-m", "tsbs_daw", "watch"]


class Played:
    """What is there after the action, the named region, and a second start.

    handed_over: what the daemon was given, by the job's id, in the order it was asked for
    tracks:      of the saved session; again: of the session after the second start
    """

    def __init__(self, studio: Studio, home: Path):
        self.studio, self.home = studio, home
        self.kept = studio.folder / "handed over"
        self.kept.mkdir()
        self.tickets = ""
        self.tracks: list[SavedTrack] = []
        self.again: list[SavedTrack] = []

    def look(self, _: dict[str, str]) -> None:
        """Keep what goes away with the job."""
        for folder in sorted((self.home / "spool" / "jobs").glob("*")):
            source = folder / "source" / "region.wav"
            if (self.kept / folder.name).exists():
                continue
            with suppress(FileNotFoundError):  # not there yet, or gone at this moment
                shutil.copy(source, self.kept / "part")
                (self.kept / "part").rename(self.kept / folder.name)
        tickets = self.studio.session.parent / "tsbs-daw.json"
        text = tickets.read_text(encoding="utf-8") if tickets.exists() else ""
        if '"waiting"' in text:
            self.tickets = text

    @property
    def results(self) -> list[dict]:
        files = sorted((self.home / "spool" / "done").glob("*/result.json"), key=lambda file: file.stat().st_mtime)
        return [json.loads(file.read_text(encoding="utf-8")) for file in files]

    @property
    def handed_over(self) -> list[Path]:
        return [self.kept / result["id"] for result in self.results]

    def track(self, stem: dict, job: str) -> SavedTrack:
        (found,) = [track for track in self.tracks if track.comment == f"tsbs-daw {job} {stem['name']}"]
        return found


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Played]:
    folder = tmp_path_factory.mktemp("ardour")
    studio, home = prepared(folder)
    result = Played(studio, home)
    with (folder / "daemon.log").open("ab") as log, process(DAEMON, environment(home), stdout=log, stderr=log):
        wait_for(home / "spool" / "heartbeat.json")
        picture = os.environ.get(PICTURE)
        studio.play("import", meanwhile=result.look, picture=Path(picture) if picture else None)
        result.tracks = saved_tracks(studio.session)
        (studio.session.parent / "tsbs-daw.json").write_text(result.tickets, encoding="utf-8")
        studio.play("again")
        result.again = saved_tracks(studio.session)
    yield result


def prepared(folder: Path) -> tuple[Studio, Path]:
    """An empty session, a mix beside it, and the scripts installed. Returns: the studio; the daemon's home"""
    studio, home = Studio(folder / "studio"), folder / "tsbs home"
    signals.write_file(studio.folder / "mix.wav", signals.mixture(signals.song(4.0, RATE)), RATE)
    studio.new_session()
    installed = run(home, "ardour", "install", "--config", studio.config)
    assert installed.returncode == 0, installed.stderr
    return studio, home


def wait_for(path: Path) -> None:
    end = time.monotonic() + PATIENCE_S
    while not path.exists():
        assert time.monotonic() < end, f"{path} did not come"
        time.sleep(0.1)


def audio_of(track: SavedTrack) -> np.ndarray:
    """What the track's region plays, (channels, samples)."""
    channels = []
    for file in track.files:
        audio, rate = soundfile.read(file, dtype="float32", always_2d=True, start=track.start, frames=track.samples)
        assert rate == RATE and audio.shape[1] == 1
        channels.append(audio[:, 0])
    return np.stack(channels)


def test_the_selected_region_is_handed_over_bit_for_bit(played: Played):
    mix = soundfile.read(played.studio.folder / "mix.wav", dtype="float32")[0]
    assert (played.studio.folder / "selected").read_text() == f"{MIX_AT + TRIMMED} {TRIMMED} {SAMPLES}"
    for file, length in zip(played.handed_over, (SAMPLES, SHORTER), strict=True):
        handed, rate = soundfile.read(file, dtype="float32")
        assert rate == RATE and soundfile.info(str(file)).subtype == "FLOAT"
        np.testing.assert_array_equal(handed, mix[TRIMMED : TRIMMED + length])


def test_four_tracks_come_back_at_the_regions_sample_with_the_stems_audio(played: Played):
    result = played.results[0]
    assert sorted(stem["name"] for stem in result["stems"]) == sorted(STEMS)
    for stem in result["stems"]:
        track = played.track(stem, result["id"])
        assert track.name == stem["name"] and track.color == stem["color"]
        assert (track.position, track.start, track.samples) == (MIX_AT + TRIMMED, 0, SAMPLES)
        delivered = soundfile.read(stem["path"], dtype="float32", always_2d=True)[0].T
        np.testing.assert_array_equal(audio_of(track), delivered)


def test_the_stems_are_the_regions_own(played: Played):
    result = played.results[0]
    total = sum(audio_of(played.track(stem, result["id"])) for stem in result["stems"])
    source = soundfile.read(played.handed_over[0], dtype="float32")[0].T
    assert np.std(total - source) < 0.5 * np.std(source), "aligned, or it would not come out"


def test_the_stems_have_the_regions_gain_envelope_and_fades_switched_off(played: Played):
    for stem in played.results[0]["stems"]:
        region = played.track(stem, played.results[0]["id"]).region
        assert float(region.get("scale-amplitude")) == 0.5
        assert (region.get("fade-in-active"), region.get("fade-out-active")) == ("1", "0")
        assert region.get("envelope-active") == "1"
        numbers = region.findtext("Envelope/AutomationList/events", "").split()
        assert [float(value) for value in numbers[1::2]] == [1.0, 0.25, 0.75], numbers


def test_one_undo_takes_all_stems_away_and_redo_brings_them_back(played: Played):
    told = (played.studio.folder / "undone").read_text().splitlines()
    first, second = (result["id"] for result in played.results)
    contents = dict(line.rsplit("=", 1) for line in told)
    assert {count for comment, count in contents.items() if second in comment} == {"0"}
    assert {count for comment, count in contents.items() if first in comment} == {"1"}
    assert (played.studio.folder / "redone").read_text() == "true"


def test_each_source_is_muted_in_the_undo_step_of_its_stems(played: Played):
    assert (played.studio.folder / "muted").read_text() == "true", "the one of the action"
    assert (played.studio.folder / "undone muted").read_text() == "true false true", "the one by name"
    (mix,) = [track for track in played.tracks if track.name == "mix"]
    assert mix.region.get("muted") == "1"


def test_a_region_named_for_it_is_separated_with_the_preset_in_its_name(played: Played):
    result = played.results[1]
    assert [stem["name"] for stem in result["stems"] if stem["kind"] == "output"] == ["instrumental"]
    for stem in result["stems"]:
        track = played.track(stem, result["id"])
        assert track.name.startswith(stem["name"]) and track.color == stem["color"]
        assert (track.position, track.samples) == (MIX_AT + TRIMMED, SHORTER)
    (mix,) = [track for track in played.tracks if track.name == "mix"]
    assert mix.region.get("name") == 'vérse "1"', "the request is taken out of the name"


def test_the_source_track_is_left_as_it_was(played: Played):
    (mix,) = [track for track in played.tracks if track.name == "mix"]
    assert (mix.position, mix.start, mix.samples) == (MIX_AT + TRIMMED, TRIMMED, SHORTER)
    assert len(played.tracks) == 1 + sum(len(result["stems"]) for result in played.results)


def test_the_stems_stand_right_below_their_source_the_latest_first(played: Played):
    first, second = [[f"tsbs-daw {r['id']} {stem['name']}" for stem in r["stems"]] for r in played.results]
    assert [track.comment for track in played.tracks] == ["", *second, *first]
    assert len({track.order for track in played.tracks}) == len(played.tracks)


def test_a_delivery_that_is_there_is_not_repeated_at_the_next_start(played: Played):
    assert json.loads(played.tickets)["tickets"], "a ticket was put back"
    assert sorted(track.comment for track in played.again) == sorted(track.comment for track in played.tracks)
    left = json.loads((played.studio.session.parent / "tsbs-daw.json").read_text(encoding="utf-8"))
    assert left["tickets"] == []


def answer_with_missing_stems(job: Path, done: Path) -> str:
    """As a daemon would whose output was deleted at once. Returns: what the script has to say"""
    gone = done.parent / "gone \u266a.wav"
    request = json.loads((job / "job.json").read_text(encoding="utf-8"))
    samples = soundfile.info(str(job / "source" / "region.wav")).frames
    stem = {"name": "vocals", "path": str(gone), "kind": "stem", "color": "#102030"}
    result = {"schema": 1, "id": request["id"], "state": "done", "stems": [stem], "samples": samples}
    (job / "result.json").write_text(json.dumps(result | {"sample_rate": RATE}))
    job.rename(done / job.name)
    return f"The stem {gone} is missing; separate the region again."


def answer_damaged(job: Path, done: Path) -> str:
    (job / "result.json").write_text('{"schema": 1, "state": "do')
    job.rename(done / job.name)
    return "The daemon's result is damaged: "


def answer_by_losing_the_job(job: Path, done: Path) -> str:
    shutil.rmtree(job)
    return "The job is no longer in the spool; separate the region again."


@pytest.mark.parametrize(
    "answer",
    [
        answer_with_missing_stems,
        pytest.param(answer_damaged, marks=pytest.mark.long),
        pytest.param(answer_by_losing_the_job, marks=pytest.mark.long),
    ],
)
def test_what_cannot_be_delivered_is_told_in_a_sentence_and_nothing_is_imported(
    answer: Callable[[Path, Path], str], tmp_path: Path
):
    studio, home = prepared(tmp_path)
    done = home / "spool" / "done"
    expected: list[str] = []
    said: list[str] = []

    def meanwhile(_: dict[str, str]) -> None:
        for job in home.glob("spool/inbox/*/job.json"):
            done.mkdir(exist_ok=True)
            expected.append(answer(job.parent, done))
        tickets = studio.session.parent / "tsbs-daw.json"
        if tickets.exists() and '"trouble"' in (text := tickets.read_text(encoding="utf-8")):
            (ticket,) = json.loads(text)["tickets"]
            said.append(ticket["trouble"])
            (studio.folder / "ready").touch()

    studio.play("name_only", meanwhile=meanwhile)
    assert said[0].startswith(expected[0])
    imported = sorted(file.name for file in studio.session.parent.glob("interchange/*/audiofiles/*"))
    assert imported == ["mix%L.wav", "mix%R.wav"]


def test_several_selected_regions_come_back_each_at_its_own_place(tmp_path: Path):
    studio, home = prepared(tmp_path)
    with (tmp_path / "daemon.log").open("ab") as log, process(DAEMON, environment(home), stdout=log, stderr=log):
        wait_for(home / "spool" / "heartbeat.json")
        studio.play("both")
    expected = [(MIX_AT, SHORTER), (MIX_AT + 2 * SHORTER, SHORTER - 5000)]
    assert (studio.folder / "both muted").read_text() == "true true"
    places: dict[str, set[tuple[int, int]]] = {}
    for track in saved_tracks(studio.session):
        if track.comment.startswith("tsbs-daw "):
            places.setdefault(track.comment.split()[1], set()).add((track.position, track.samples))
    assert sorted(next(iter(found)) for found in places.values()) == expected
    assert all(len(found) == 1 for found in places.values()), "the stems of a region lie together"


@pytest.mark.skipif(shutil.which("xdotool") is None, reason="xdotool is not installed")
def test_the_window_of_jobs_shows_what_is_under_way_and_cancels_what_is_ticked(tmp_path: Path):
    studio, home = prepared(tmp_path)
    pressed: list[float] = []

    def meanwhile(env: dict[str, str]) -> None:
        if (not pressed or time.monotonic() - pressed[-1] > 5) and press_in_window(
            "tsbs-daw: jobs", ["space", "Tab", "Tab", "space"], env
        ):
            pressed.append(time.monotonic())
        for cancel in home.glob("spool/inbox/*/cancel"):
            result = {"schema": 1, "id": cancel.parent.name, "state": "cancelled"}
            (cancel.parent / "result.json").write_text(json.dumps(result))
            (home / "spool" / "done").mkdir(exist_ok=True)
            cancel.parent.rename(home / "spool" / "done" / cancel.parent.name)

    studio.play("cancel_only", meanwhile=meanwhile)
    (job,) = home.glob("spool/done/*/job.json")
    assert pressed and json.loads(job.read_text(encoding="utf-8"))["song"] == "mix"
    assert json.loads((studio.session.parent / "tsbs-daw.json").read_text(encoding="utf-8"))["tickets"] == []
    assert sorted(file.name for file in studio.session.parent.glob("interchange/*/audiofiles/*")) == [
        "mix%L.wav",
        "mix%R.wav",
    ]
