"""Presets: YAML files that say which outputs to make of a song's stems. Found by name, or by path.

A name is looked for in the user's own folder first and then among the shipped ones, so that a shipped preset can be
copied, changed, and used under its old name. Reading a preset loads no audio library.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from tsbs_daw.core.config import resource_folder
from tsbs_daw.core.documents import LARGEST_BYTES
from tsbs_daw.core.errors import PresetError, did_you_mean, shown
from tsbs_daw.core.hashing import file_sha256
from tsbs_daw.effects.output import Effect, Output
from tsbs_daw.presets.delivery import PLAIN, Delivery
from tsbs_daw.presets.schema import PresetReader

__all__ = ["Delivery", "Effect", "Output", "Preset", "list_presets", "load_preset", "preset_files"]

ENDINGS = (".yaml", ".yml")


@dataclass(frozen=True)
class Preset:
    """A validated preset.

    name:     the file's name without its ending
    outputs:  none: the stems alone
    sha256:   of the file's bytes and of the impulse responses it names: what the outputs depend on
    delivery: what the files are like, and what is made beside them
    """

    name: str
    description: str
    outputs: tuple[Output, ...]
    path: Path
    sha256: str
    delivery: Delivery = PLAIN

    def check_stems(self, stems: Collection[str]) -> None:
        """Raises: PresetError: an output asks for a stem that the model does not give"""
        for output in self.outputs:
            for source in output.sources:
                if source not in stems:
                    raise PresetError(
                        f"the output {output.name!r} is made from the stem {source!r}, and the model gives "
                        f"{', '.join(stems)}; choose another preset or model.",
                        self.path,
                    )


def preset_files(own: Path | None = None) -> dict[str, Path]:
    """Every preset that has a name, valid or not, sorted by name; a user's own hides a shipped one.

    Args: own: the user's folder, `Settings.presets`; None: the shipped ones alone
    """
    files: dict[str, Path] = {}
    for folder in (resource_folder("presets"), own):
        if folder is not None and folder.is_dir():
            files |= {path.stem: path for path in folder.iterdir() if path.suffix in ENDINGS and path.is_file()}
    return dict(sorted(files.items()))


def list_presets(own: Path | None = None) -> list[Preset]:
    """All presets that have a name.

    Raises: PresetError: for the first one that is not valid
    """
    return [read_preset(path) for path in preset_files(own).values()]


def load_preset(name_or_path: str | Path, own: Path | None = None) -> Preset:
    """A preset by its name (`karaoke`, `none`) or by its file.

    Args:   own: the user's folder, `Settings.presets`; None: the shipped ones alone
    Raises: PresetError: no such preset, or not a valid one; with file, line and column
    """
    path = Path(name_or_path).expanduser()
    if isinstance(name_or_path, Path) or path.suffix.lower() in ENDINGS or path.name != str(name_or_path):
        return read_preset(path)
    files = preset_files(own)
    if str(name_or_path) not in files:
        closest = did_you_mean(str(name_or_path), list(files))
        raise PresetError(
            f"There is no preset {shown(name_or_path)}{closest or '.'} `tsbs-daw presets list` shows them all."
        )
    return read_preset(files[str(name_or_path)])


def read_preset(path: Path) -> Preset:
    """Read one file. Raises: PresetError"""
    path = path.absolute()
    if not path.is_file():
        raise PresetError("there is no such preset file; check the path.", path)
    try:
        with path.open("rb") as file:
            data = file.read(LARGEST_BYTES + 1)
    except OSError as error:
        raise PresetError(f"the preset cannot be read ({error.strerror}); check its permissions.", path) from error
    description, outputs, delivery = PresetReader(path).read(data)
    return Preset(path.stem, description, outputs, path, _digest(data, outputs), delivery)


def _digest(data: bytes, outputs: tuple[Output, ...]) -> str:
    digest = hashlib.sha256(data)
    for output in outputs:
        for effect in output.effects():
            if response := effect.parameters.get("impulse_response_filename"):
                path = Path(str(response))
                # Of nothing when it is not there, which rendering will report.
                digest.update(file_sha256(path).encode() if path.is_file() else b"")
    return digest.hexdigest()
