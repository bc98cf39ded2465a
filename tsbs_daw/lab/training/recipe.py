"""A recipe: all settings of a training run except the location of its songs. Read from YAML, validated and frozen.

A recipe of the package is selected by its name (`tiny-bundled`), any other by its path.
"""

from __future__ import annotations

import importlib.resources
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from tsbs_daw.core.documents import Kind, read_model
from tsbs_daw.core.errors import SettingsError, first_problem

FORMAT = 1


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())


class ModelPart(_Part):
    """The network: one of the three sizes; `overrides` replaces fields of ModelConfig."""

    size: Literal["tiny", "lite", "full"]
    overrides: dict[str, Any] = Field(default_factory=dict)
    gradient_checkpointing: bool = False


class DataPart(_Part):
    """How excerpts are drawn.

    Attributes:
        segment_s: Length of an excerpt, in seconds.
        segments_s: Lengths that passes choose from; longer excerpts mean smaller batches. Empty: `segment_s`.
        coherent_probability: Probability that all stems of an example come from one position of one song; otherwise
            each comes from a song of its own.
        active_share: Share of excerpts that are drawn from the seconds in which the stem sounds.
        active_above_db: RMS in dBFS above which a stem sounds.
        source_weights: Relative frequency of each of several folders of songs; empty: equal.
        follow_s: Interval to look for new songs during training; 0: never.
        device_gb: GPU memory for songs.
    """

    segment_s: float = Field(3.0, gt=0, le=60)
    segments_s: tuple[Annotated[float, Field(gt=0, le=60)], ...] = ()
    coherent_probability: float = Field(0.0, ge=0, le=1)
    active_share: float = Field(0.95, ge=0, le=1)
    active_above_db: float = Field(-45.0, description="a second whose RMS is above this (dBFS) counts as active")
    source_weights: tuple[Annotated[float, Field(gt=0)], ...] = ()
    follow_s: float = Field(0.0, ge=0)
    device_gb: float = Field(12.0, gt=0)


class AugmentPart(_Part):
    """Probabilities and ranges; see tsbs_daw.lab.training.excerpts.

    Per stem:    gain, swap_channels, flip_polarity, silence_stem, equaliser, mixup (a second source of the same kind)
    Per example: bus_equaliser, low_pass, narrow, master (compressor and limiter, to a loudness in the range)
    Per batch:   pitch
    """

    gain_min_db: float = -9.0
    gain_max_db: float = 3.0
    swap_channels: float = Field(0.5, ge=0, le=1)
    flip_polarity: float = Field(0.5, ge=0, le=1)
    silence_stem: float = Field(0.1, ge=0, le=1)
    mixup: float = Field(0.0, ge=0, le=1)
    equaliser: float = Field(0.0, ge=0, le=1)
    bus_equaliser: float = Field(0.0, ge=0, le=1)
    low_pass: float = Field(0.0, ge=0, le=1)
    narrow: float = Field(0.0, ge=0, le=1)
    pitch: float = Field(0.0, ge=0, le=1)
    master: float = Field(0.0, ge=0, le=1)
    loudness_min_db: float = -18.0
    loudness_max_db: float = -7.0

    @model_validator(mode="after")
    def _ordered(self) -> AugmentPart:
        for low, high in (("gain_min_db", "gain_max_db"), ("loudness_min_db", "loudness_max_db")):
            if getattr(self, low) > getattr(self, high):
                raise ValueError(f"{low} must not be above {high}")
        return self


class LossPart(_Part):
    """Weights of the terms; see tsbs_daw.lab.training.objective.

    Attributes:
        tilt_db_per_octave: Increase of a spectral error's weight per octave; with 3, all octaves of pink noise weigh
            the same.
        sdr_weight: Weight of the error's level in dB relative to the mixture, which is what SDR measures; 0: none.
    """

    final_weight: float = Field(1.0, ge=0)
    mask_weight: float = Field(1.0, ge=0)
    time_weight: float = Field(1.0, ge=0)
    spectrum_weight: float = Field(1.0, ge=0)
    sdr_weight: float = Field(0.0, ge=0)
    n_ffts: tuple[int, ...] = (2048,)
    tilt_db_per_octave: float = Field(0.0, ge=0, le=12)
    equalise_stems: bool = True


class OptimiserPart(_Part):
    """Settings of the optimiser. The rate rises for `warmup_steps`, then falls to its `final_share` at `total_steps`.

    Attributes:
        kind: AdamW for everything, or Muon for the matrices; see tsbs_daw.lab.training.optimiser.
        train: Train the whole network, or only the map stage with a frozen mask stage.
        map_levels: Train the map stage in units of each band's level; otherwise it learns almost nothing (Muon only).
        precision: `auto` is bfloat16 if the hardware multiplies it, otherwise float32.
        compile: On CUDA, compile the blocks during the first steps; if that fails, they stay plain.
    """

    kind: Literal["adamw", "muon"] = "adamw"
    train: Literal["all", "map_stage"] = "all"
    map_levels: bool = False
    learning_rate: float = Field(1e-3, gt=0)
    weight_decay: float = Field(1e-2, ge=0)
    betas: tuple[float, float] = (0.9, 0.99)
    warmup_steps: int = Field(500, ge=0)
    total_steps: int = Field(100_000, gt=0)
    decay: Literal["cosine", "exponential", "constant"] = "cosine"
    final_share: float = Field(0.02, gt=0, le=1)
    clip_norm: float = Field(5.0, gt=0)
    ema_decay: float = Field(0.999, ge=0, lt=1)
    batch: int = Field(4, gt=0, description="examples per device and pass")
    accumulate: int = Field(1, gt=0, description="passes per step")
    precision: Literal["auto", "32-true", "bf16-mixed"] = "32-true"
    compile: bool = True

    @model_validator(mode="after")
    def _levels_need_muon(self) -> OptimiserPart:
        if self.map_levels and self.kind != "muon":
            raise ValueError("map_levels needs kind: muon")
        return self


class ValidationPart(_Part):
    """Validation on fixed excerpts of the held-out songs; the best checkpoint has the highest mean SDR on them.

    Attributes:
        every_s: Interval in seconds for a run with --minutes, which ignores every_steps.
    """

    every_steps: int = Field(500, gt=0)
    every_s: float = Field(60.0, gt=0)
    excerpts: int = Field(24, gt=0)
    segment_s: float = Field(3.0, gt=0, le=60)


class LogPart(_Part):
    curve_every_steps: int = Field(20, gt=0)
    checkpoint_every_steps: int = Field(250, gt=0)
    keep_every_steps: int = Field(0, ge=0, description="also keep the averaged weights at every such step; 0: never")
    tensorboard: bool = False


class Recipe(_Part):
    """The settings of a training run. `seed` and the number of the step determine every example."""

    format: Literal[1] = 1
    name: str
    description: str = ""
    seed: int = Field(0, ge=0)
    model: ModelPart
    data: DataPart = DataPart()
    augment: AugmentPart = AugmentPart()
    loss: LossPart = LossPart()
    optimiser: OptimiserPart = OptimiserPart()
    validation: ValidationPart = ValidationPart()
    log: LogPart = LogPart()

    def model_config_value(self):
        """Return the ModelConfig of this recipe.

        Raises:
            SettingsError: An override is not a valid field of ModelConfig.
        """
        from tsbs_daw import network as networks

        base = {"tiny": networks.TINY, "lite": networks.LITE, "full": networks.FULL}[self.model.size]
        overrides = {key: _frozen(value) for key, value in self.model.overrides.items()}
        try:
            return replace(base, **overrides)
        except (TypeError, ValueError) as error:
            raise SettingsError(f"the recipe {self.name} has model overrides that do not fit: {error}") from error


def _frozen(value: Any) -> Any:
    """Convert lists to tuples at all levels, because ModelConfig must be hashable."""
    return tuple(_frozen(item) for item in value) if isinstance(value, list) else value


def recipe_folder() -> Path:
    return Path(str(importlib.resources.files("tsbs_daw.lab.training"))) / "recipes"


def list_recipes() -> list[str]:
    return sorted(path.stem for path in recipe_folder().glob("*.yaml"))


def load_recipe(name_or_path: str | Path, changes: list[str] | tuple[str, ...] = ()) -> Recipe:
    """Read a recipe and apply changes.

    Args:
        name_or_path: Name of a recipe of the package, or path of a file.
        changes: `part.field=value` each; the values are YAML.

    Raises:
        SettingsError: There is no such recipe, it is not YAML, or a value is invalid.
    """
    path = _find(name_or_path)
    recipe = read_model(path, Recipe, Kind("recipe", SettingsError, f"see the recipes in {recipe_folder()}"))
    if not changes:
        return recipe
    document = recipe.model_dump(mode="json", exclude_unset=True)
    for change in changes:
        _apply(document, change)
    return recipe_from_document(document, str(path))


def recipe_from_document(document: dict, origin: str) -> Recipe:
    """Validate a parsed document. `origin` names it in error messages."""
    try:
        return Recipe.model_validate(document)
    except ValidationError as error:
        raise SettingsError(f"the recipe {origin} has a wrong setting: {first_problem(error).clause}.") from error


def _find(name_or_path: str | Path) -> Path:
    path = Path(name_or_path)
    if path.suffix in (".yaml", ".yml") or path.exists():
        return path
    bundled = recipe_folder() / f"{name_or_path}.yaml"
    if bundled.is_file():
        return bundled
    raise SettingsError(f"there is no recipe {name_or_path}; choose one of {', '.join(list_recipes())}, or give a file")


def _apply(document: dict, change: str) -> None:
    key, separator, value = change.partition("=")
    if not separator or not key.strip():
        raise SettingsError(f"the change {change!r} is not of the form part.field=value")
    *parts, last = key.strip().split(".")
    for part in parts:
        document = document.setdefault(part, {})
        if not isinstance(document, dict):
            raise SettingsError(f"the change {change!r} names no setting")
    document[last] = yaml.safe_load(value)
