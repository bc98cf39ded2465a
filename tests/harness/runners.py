"""Stand-ins for the pipeline: in milliseconds, what the daemon must cope with; published by the real delivery.

What happens is said by the first word of the song's name:

    crash    dies by SIGKILL            once     dies the first time, delivers the second
    hang     never ends, but is alive   stop     stops its whole process, as a debugger would; goes on when continued
    deaf     never ends, ignores cancel slow     takes a second, asks whether it is cancelled
    brief    takes a fifth of a second
    held     goes on when the test lets it, see `way_of`; asks whether it is cancelled
    refuse   raises UnreadableAudio     full     the disk is full the first two times, while stems are written
    print    prints to stdout, in Python and in C, then delivers
    break    raises something that nobody expects
    lose     finds the device lost, the first time
    wait     finds no node of a cluster until the test lets it, see `way_of`
    (else)   delivers at once

Every run leaves a line in <home>/runs.log, every publication one in <home>/published.log.
"""

from __future__ import annotations

import errno
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

from tsbs_daw.contracts.job import Job, Result, State
from tsbs_daw.contracts.manifest import FILE_NAME, AudioFile, Manifest, NamedHash, SourceEntry, identity_of
from tsbs_daw.core.config import Settings
from tsbs_daw.core.errors import ClusterUnavailable, DeviceLost, JobCancelled, UnreadableAudio
from tsbs_daw.core.filenames import safe_name
from tsbs_daw.core.files import file_sha256
from tsbs_daw.pipeline.publish import StagedFolder, find_previous_run

RUNNER = "runners:run"


def run(
    job: Job,
    *,
    settings: Settings,
    fence: int,
    attempt: int,
    progress: Callable[[float, str], None],
    cancelled: Callable[[], bool],
) -> Result:
    song = safe_name(job.song or job.source.path.stem)
    note(settings, "runs.log", f"{job.id} {fence} {song}")
    progress(0.1, "separating")
    act = ACTS.get(song.split()[0])
    if act is not None:
        act(job, attempt=attempt, cancelled=cancelled, way=way_of(settings, song))
    progress(0.9, "writing")
    full = song.startswith("full") and attempt < 3
    return deliver(job, song, settings, fence, cancelled, full=full)


def deliver(
    job: Job, song: str, settings: Settings, fence: int, cancelled: Callable[[], bool], *, full: bool
) -> Result:
    digest = file_sha256(job.source.path)
    portion = {"start_samples": job.source.start_samples, "length_samples": job.source.length_samples}
    identity = identity_of(
        source_sha256=digest,
        model_sha256="b" * 64,
        preset_sha256="c" * 64,
        treatment=job.treatment,
        **portion,
    )
    folder = find_previous_run(job.output, song, identity)
    if folder is None:
        with StagedFolder(job.output, song, preset=job.preset, identity=identity, job=job.id, fence=fence) as delivery:
            (delivery.folder / "vocals.wav").write_bytes(job.source.path.read_bytes())
            if full:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            if cancelled():
                raise JobCancelled
            published = delivery.publish(_manifest(job, song, digest, identity))
        folder = published.folder
        if not published.recognised:
            note(settings, "published.log", f"{job.id} {fence} {folder.name} {digest}")
    return Result(id=job.id, state=State.DONE, folder=folder, manifest=folder / FILE_NAME, deliver=job.deliver)


def way_of(settings: Settings, song: str) -> Path:
    """The file that lets a held song go on."""
    return settings.home / f"{song} may go"


def note(settings: Settings, name: str, line: str) -> None:
    with (settings.home / name).open("a", encoding="utf-8") as log:
        log.write(line + "\n")


def _manifest(job: Job, song: str, digest: str, identity: str) -> Manifest:
    source = {"container": "WAV", "subtype": "FLOAT", "sample_rate": 44100, "channels": 2, "samples": 10}
    return Manifest(
        job=job.id,
        song=song,
        identity=identity,
        source=SourceEntry(path=job.source.path, sha256=digest, **source),
        model=NamedHash(name=job.model, sha256="b" * 64),
        preset=NamedHash(name=job.preset, sha256="c" * 64),
        stage=job.stage,
        null=job.null,
        salvage=job.salvage,
        stems=(AudioFile(name="vocals", kind="stem", file="vocals.wav", size_bytes=job.source.path.stat().st_size),),
    )


def _crash(job: Job, **_: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _once(job: Job, *, attempt: int, **_: object) -> None:
    if attempt == 1:
        os.kill(os.getpid(), signal.SIGKILL)


def _hang(job: Job, *, cancelled: Callable[[], bool], **_: object) -> None:
    while not cancelled():
        time.sleep(0.05)
    raise JobCancelled


def _stop(job: Job, *, attempt: int, **_: object) -> None:
    if attempt == 1:
        os.kill(os.getpid(), signal.SIGSTOP)


def _deaf(job: Job, **_: object) -> None:
    time.sleep(3600)


def _slow(job: Job, *, cancelled: Callable[[], bool], **_: object) -> None:
    until = time.monotonic() + 1.0
    while time.monotonic() < until:
        if cancelled():
            raise JobCancelled
        time.sleep(0.02)


def _brief(job: Job, **_: object) -> None:
    time.sleep(0.2)


def _held(job: Job, *, cancelled: Callable[[], bool], way: Path, **_: object) -> None:
    while not way.exists():
        if cancelled():
            raise JobCancelled
        time.sleep(0.02)


def _refuse(job: Job, **_: object) -> None:
    raise UnreadableAudio(f"{job.source.path} is not audio; give a sound file.")


def _print(job: Job, **_: object) -> None:
    print('{"event": "done"} is what a library might print', flush=True)
    os.write(1, b"and this comes from C\n")


def _break(job: Job, **_: object) -> None:
    raise ZeroDivisionError("nobody expects this")


def _lose(job: Job, *, attempt: int, **_: object) -> None:
    if attempt == 1:
        raise DeviceLost("The GPU failed (CUDA error: an illegal memory access was encountered); start again.")


def _wait(job: Job, *, way: Path, **_: object) -> None:
    if not way.exists():
        raise ClusterUnavailable("The cluster 10.0.0.1:6379 has no node that computes. The song waits.")


ACTS = {
    "crash": _crash,
    "once": _once,
    "hang": _hang,
    "stop": _stop,
    "deaf": _deaf,
    "slow": _slow,
    "brief": _brief,
    "held": _held,
    "refuse": _refuse,
    "print": _print,
    "break": _break,
    "lose": _lose,
    "wait": _wait,
}

RUNNERS_FOLDER = Path(__file__).parent
