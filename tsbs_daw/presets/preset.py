"""Presets: YAML files that define the outputs made from a song's stems. Found by name or by path.

The user's own folder is searched before the shipped presets, so that a shipped preset can be copied, changed, and used
under its old name. Reading a preset loads no audio library.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from tsbs_daw.core.config import resource_folder
from tsbs_daw.core.documents import LARGEST_BYTES
from tsbs_daw.core.errors import PresetError, did_you_mean, shown
from tsbs_daw.core.files import file_sha256, open_regular
from tsbs_daw.effects.table import Effect, Output
from tsbs_daw.presets.delivery import PLAIN, DeliveryOptions
from tsbs_daw.presets.passes import Pass
from tsbs_daw.presets.schema import PresetReader

__all__ = ["DeliveryOptions", "Effect", "Output", "Pass", "Preset", "list_presets", "load_preset", "preset_files"]

ENDINGS = (".yaml", ".yml")


@dataclass(frozen=True)
class Preset:
    """A validated preset.

    Attributes:
        name: the file name without its ending
        outputs: empty for stems only
        sha256: of the file and of the impulse responses it names: everything that the outputs depend on
        delivery: the delivery options
        passes: which stems go through which other models, in order
    """

    name: str
    description: str
    outputs: tuple[Output, ...]
    path: Path
    sha256: str
    delivery: DeliveryOptions = PLAIN
    passes: tuple[Pass, ...] = ()

    def check_stems(self, stems: Collection[str]) -> None:
        """Check that every stem that an output uses is there: the model's, and those of the passes.

        Raises:
            PresetError: it does not
        """
        for output in self.outputs:
            for source in output.sources:
                if source not in stems:
                    raise PresetError(
                        f"the output {output.name!r} uses the stem {source!r}, but the model provides "
                        f"{', '.join(stems)}; choose another preset or model.",
                        self.path,
                    )


def preset_files(own: Path | None = None) -> dict[str, Path]:
    """Every preset that can be used by name, valid or not, sorted by name. A user's own hides a shipped one.

    Args:
        own: the user's folder, `Settings.presets`; None: only the shipped presets
    """
    files: dict[str, Path] = {}
    for folder in (resource_folder("presets"), own):
        if folder is not None and folder.is_dir():
            files |= {path.stem: path for path in folder.iterdir() if path.suffix in ENDINGS and path.is_file()}
    return dict(sorted(files.items()))


def list_presets(own: Path | None = None) -> list[Preset]:
    """All presets that can be used by name.

    Raises:
        PresetError: for the first invalid one
    """
    return [read_preset(path) for path in preset_files(own).values()]


def load_preset(name_or_path: str | Path, own: Path | None = None) -> Preset:
    """Load a preset by name (`karaoke`, `none`) or by file.

    Args:
        name_or_path: a name, or a path that ends in .yaml or .yml
        own: the user's folder, `Settings.presets`; None: only the shipped presets

    Raises:
        PresetError: no such preset, or an invalid one; with file, line and column
    """
    path = Path(name_or_path).expanduser()
    if isinstance(name_or_path, Path) or path.suffix.lower() in ENDINGS or path.name != str(name_or_path):
        return read_preset(path)
    files = preset_files(own)
    if str(name_or_path) not in files:
        closest = did_you_mean(str(name_or_path), list(files))
        raise PresetError(
            f"There is no preset {shown(name_or_path)}{closest or '.'} `tsbs-daw presets list` lists all presets."
        )
    return read_preset(files[str(name_or_path)])


def read_preset(path: Path) -> Preset:
    """Read a preset file. Raises: PresetError"""
    path = path.absolute()
    if not path.is_file():
        raise PresetError("no such preset file; check the path.", path)
    try:
        with open_regular(path) as file:
            data = file.read(LARGEST_BYTES + 1)
    except OSError as error:
        raise PresetError(f"cannot read the preset ({error.strerror}); check its permissions.", path) from error
    content = PresetReader(path).read(data)
    digest = _digest(data, content.outputs)
    return Preset(path.stem, content.description, content.outputs, path, digest, content.delivery, content.passes)


def _digest(data: bytes, outputs: tuple[Output, ...]) -> str:
    digest = hashlib.sha256(data)
    for output in outputs:
        for effect in output.effects():
            if response := effect.parameters.get("impulse_response_filename"):
                path = Path(str(response))
                # A missing file adds nothing; rendering reports it.
                digest.update(file_sha256(path).encode() if path.is_file() else b"")
    return digest.hexdigest()
