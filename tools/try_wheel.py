"""Build the wheel, install it alone into an empty environment, and use it: `make wheel`.

What an editable installation hides shows here: a file that is not packed, a dependency that only the tests bring.

    python tools/try_wheel.py [--constraint FILE]
"""

from __future__ import annotations

import argparse
import math
import os
import struct
import subprocess
import sys
import tempfile
import venv
import wave
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SAMPLE_RATE = 44100
# Makes and measures the model; nobody needs it to use the program.
NOT_PACKED = ("NOTES.md", ".jsonl", ".csv", "/tests/")


def main() -> int:
    """Exit code 0 if the wheel installs and separates a sound."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--constraint", type=Path, help="Versions to install, as pip's --constraint takes them.")
    lock = parser.parse_args().constraint
    with tempfile.TemporaryDirectory(prefix="tsbs-daw-wheel-") as name:
        folder = Path(name)
        wheel = build(folder)
        look_inside(wheel)
        program = install(wheel, folder / "venv", lock)
        use(program, folder)
    return 0


def build(folder: Path) -> Path:
    """Build the wheel of this checkout into `folder`."""
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet", "--quiet"]
    run([*pip, "wheel", "--no-deps", "--wheel-dir", folder, ROOT])
    (wheel,) = folder.glob("tsbs_daw-*.whl")
    return wheel


def look_inside(wheel: Path) -> None:
    """Print the wheel's size, and fail on what does not belong into it."""
    with zipfile.ZipFile(wheel) as archive:
        entries = archive.infolist()
    packed = [entry.filename for entry in entries]
    wrong = [name for name in packed if any(part in name for part in NOT_PACKED)]
    unpacked_mb = sum(entry.file_size for entry in entries) / 1e6
    print(f"{wheel.name}: {wheel.stat().st_size / 1e6:.2f} MB, {len(packed)} files, {unpacked_mb:.2f} MB unpacked")
    if wrong:
        raise SystemExit(f"These files do not belong in the wheel: {', '.join(wrong)}")
    if "tsbs_daw/py.typed" not in packed:
        raise SystemExit("The wheel has no py.typed, so that type checkers ignore its types.")


def install(wheel: Path, folder: Path, lock: Path | None) -> Path:
    """Install the wheel into a new environment. Returns the path of its `tsbs-daw`."""
    venv.create(folder, with_pip=True)
    scripts = folder / ("Scripts" if os.name == "nt" else "bin")
    pip = [scripts / "python", "-m", "pip", "--disable-pip-version-check", "--quiet", "--quiet"]
    run([*pip, "install", *(["--constraint", lock] if lock else []), wheel])
    return scripts / "tsbs-daw"


def use(program: Path, folder: Path) -> None:
    """Ask for help, list the presets and separate two seconds of sound, far away from the checkout."""
    write_sound(folder / "sound.wav", seconds=2.0)
    for arguments in (["--version"], ["--help"], ["presets", "list"], ["separate", "sound.wav", "--out", "stems"]):
        print(f"$ tsbs-daw {' '.join(arguments)}", flush=True)
        run([program, *arguments], folder)
    stems = sorted(path.name for path in (folder / "stems" / "sound").glob("*.wav"))
    if stems != ["bass.wav", "drums.wav", "other.wav", "vocals.wav"]:
        raise SystemExit(f"Expected four stems and found {stems}.")


def write_sound(path: Path, seconds: float) -> None:
    """A stereo tone of 220 Hz as a WAV file of 16 bits."""
    count = round(seconds * SAMPLE_RATE)
    levels = (round(8000 * math.sin(2 * math.pi * 220 * index / SAMPLE_RATE)) for index in range(count))
    with wave.open(str(path), "wb") as file:
        file.setnchannels(2)
        file.setsampwidth(2)
        file.setframerate(SAMPLE_RATE)
        file.writeframes(b"".join(struct.pack("<hh", level, level) for level in levels))


def run(command: list[object], folder: Path = ROOT) -> None:
    """Run a command without this checkout on its path. Raises: SystemExit: it failed"""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment["TSBS_DAW_HOME"] = str(folder / ".home")
    done = subprocess.run([str(word) for word in command], cwd=folder, env=environment, check=False)
    if done.returncode:
        raise SystemExit(f"{command[0]} ended with exit code {done.returncode}.")


if __name__ == "__main__":
    raise SystemExit(main())
