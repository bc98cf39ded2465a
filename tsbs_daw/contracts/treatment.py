"""What is done to a song: preset, model, options. The same value in jobs, watch folders and batches.

A treatment makes its own fingerprint: a short name for "the same settings". It does not decide what is reused of a
separation, which the pipeline does with the hashes of what it really loaded; it only says whether a song has been dealt
with. So it is cheap, and a file that does not look different is not read again.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator
from pydantic_core import to_json

from tsbs_daw.contracts import Part
from tsbs_daw.core.config import Settings
from tsbs_daw.core.errors import PresetError
from tsbs_daw.core.files import file_sha256
from tsbs_daw.models import registry
from tsbs_daw.presets.delivery import DeliveryOptions

_LONGEST_NAME = 32767  # characters; Windows' limit for a path, the largest of the systems
_UNUSABLE = "unusable"  # what is wrong with it, the job will say


def _name_or_path(text: str) -> str:
    if "\0" in text or len(text) > _LONGEST_NAME:
        raise ValueError(f"{text[:100]!r} is neither a name nor a path that a system can have")
    return text


class Treatment(Part):
    """What is done to a song.

    Attributes:
        preset: A shipped preset's name or an absolute path to a YAML file.
        model: A registered model's name or an absolute path; the mean of several with commas between them.
        stage: "full" runs both stages of the network, "mask" only the first.
        null: Share the residual among the stems, whatever the preset says. It is the default by now.
        salvage: Separate what is left of a cut file.
        delivery: What differs from the preset's own `delivery:`.
    """

    preset: Annotated[str, AfterValidator(_name_or_path)] = "none"
    model: Annotated[str, AfterValidator(_name_or_path)] = "default"
    stage: Literal["full", "mask"] = "full"
    null: bool = False
    salvage: bool = False
    delivery: DeliveryOptions | None = None

    def fingerprint(self, hashes: ContentHashes, output: Path) -> str:
        """Equal for equal treatments with the same output, whichever process asks.

        The preset counts by its content, models by their names; `ContentHashes.of_models` tells weights apart.
        """
        decisive: list[Any] = [hashes.of_preset(self.preset), self.preset, self.model, self.stage, self.null]
        decisive += [os.fsencode(output).hex(), *hashes.precision]
        # Only then: without them, the fingerprint is that of versions that knew of neither.
        decisive += ["salvage"] if self.salvage else []
        decisive += [to_json(self.delivery.stated).decode()] if self.delivery else []
        return hashlib.sha256(json.dumps(decisive).encode()).hexdigest()


class ContentHashes:
    """Hashes of the files that names of presets and models lead to. Each file is read again only when it changed.

    Threads may share one: a hash that two of them compute is the same.
    """

    def __init__(self, settings: Settings):
        self._settings = settings
        self._presets: dict[str, Path] = {}
        self._passes: dict[str, tuple[str, ...]] = {}  # the models of its passes, by the content of a preset
        self._known: dict[Path, tuple[tuple[int, int], str]] = {}

    @property
    def precision(self) -> tuple[str, ...]:
        """The precision, if one was asked for: without, everything is called as before there was a choice."""
        return () if self._settings.precision == "auto" else (self._settings.precision,)

    def of_model(self, name: str) -> str:
        """The content of the checkpoints, wherever the name leads, and the precision; the name while there is none."""
        return "-".join((*map(self._of_weights, registry.members(name)), *self.precision))

    def _of_weights(self, name: str) -> str:
        path = registry.locate(name, self._settings)
        digest = self._of_file(path, file_sha256) if path else _UNUSABLE
        return hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest() if digest == _UNUSABLE else digest

    def of_models(self, treatment: Treatment) -> str:
        """`of_model` of the treatment's model and of those that its preset's passes name."""
        own, preset = self.of_model(treatment.model), self.of_preset(treatment.preset)
        models = self._passes.get(preset, ())
        if not models:
            return own
        return hashlib.sha256("\n".join([own, *map(self.of_model, models)]).encode()).hexdigest()

    def of_preset(self, name: str) -> str:
        """The content of a preset and of the files it names; a constant for one that cannot be read."""
        from tsbs_daw.presets.preset import preset_files, read_preset

        def digest(path: Path) -> str:
            preset = read_preset(path)
            self._passes[preset.sha256] = tuple(step.model for step in preset.passes)
            return preset.sha256

        path = Path(name) if Path(name).is_absolute() else self._presets.get(name)
        if path is None or not path.is_file():
            path = self._presets[name] = preset_files(self._settings.presets).get(name, Path(name))
        return self._of_file(path, digest)

    def _of_file(self, path: Path, digest: Callable[[Path], str]) -> str:
        try:
            status = path.stat()
            look = (status.st_size, status.st_mtime_ns)
            known = self._known.get(path)
            if known is None or known[0] != look:
                known = self._known[path] = (look, digest(path))
            return known[1]
        except (OSError, ValueError, PresetError):
            return _UNUSABLE
