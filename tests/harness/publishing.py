"""A small publishing program: run as a child process by the tests that kill it, race it, or fill its disk.

    python publishing.py OUTPUT JOB FENCE [--size BYTES] [--input LETTER] [--wait-for FILE]

Prints the published folder, or the error's class and sentence with exit status 1.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from tsbs_daw.contracts.job import Treatment
from tsbs_daw.contracts.manifest import AudioFile, Manifest, NamedHash, SourceEntry, identity_of
from tsbs_daw.core.errors import TsbsDawError
from tsbs_daw.pipeline.publish import Published, StagedFolder

SONG = "Night Drive"


def identity(letter: str) -> str:
    return identity_of(
        source_sha256=letter * 64,
        model_sha256="b" * 64,
        preset_sha256="c" * 64,
        treatment=Treatment(),
    )


def manifest_for(staged: StagedFolder, letter: str) -> Manifest:
    stems = tuple(
        AudioFile(name=path.stem, kind="stem", file=path.name, size_bytes=path.stat().st_size)
        for path in sorted(staged.folder.glob("*.wav"))
    )
    return Manifest(
        job=staged.job,
        song=staged.song,
        identity=staged.identity,
        source=SourceEntry(
            path="/song.wav",
            sha256=letter * 64,
            container="WAV",
            subtype="FLOAT",
            sample_rate=44100,
            channels=2,
            samples=10,
        ),
        model=NamedHash(name="default", sha256="b" * 64),
        preset=NamedHash(name="none", sha256="c" * 64),
        stage="full",
        null=False,
        salvage=False,
        stems=stems,
    )


def publish(
    output: Path, job: str = "job", fence: int = 1, *, letter: str = "a", size: int = 1000, song: str = SONG
) -> Published:
    with StagedFolder(output, song, preset="none", identity=identity(letter), job=job, fence=fence) as staged:
        for stem in ("vocals", "drums"):
            (staged.folder / f"{stem}.wav").write_bytes(letter.encode() * size)
        return staged.publish(manifest_for(staged, letter))


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("output", type=Path)
    parser.add_argument("job")
    parser.add_argument("fence", type=int)
    parser.add_argument("--size", type=int, default=1000)
    parser.add_argument("--input", default="a")
    parser.add_argument("--wait-for", type=Path)
    arguments = parser.parse_args()
    while arguments.wait_for and not arguments.wait_for.exists():
        time.sleep(0.001)
    try:
        print(publish(arguments.output, arguments.job, arguments.fence, letter=arguments.input, size=arguments.size))
    except TsbsDawError as error:
        print(f"{type(error).__name__}: {error}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
