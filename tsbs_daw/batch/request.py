"""What a crate is asked for."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tsbs_daw.contracts.job import DeliveryOptions
from tsbs_daw.core.errors import UsageError
from tsbs_daw.presets.delivery import Delivery
from tsbs_daw.presets.preset import load_preset


@dataclass(frozen=True)
class CrateRequest:
    """folder: where the songs are; out: where everything goes; both absolute. The rest as in a job.

    options: what is to be different from the preset's `delivery:`
    """

    folder: Path
    out: Path
    preset: str = "crate"
    model: str = "default"
    stage: Literal["full", "mask"] = "full"
    null: bool = False
    salvage: bool = False
    options: DeliveryOptions | None = None

    @property
    def name(self) -> str:
        """What the crate is called."""
        return self.folder.name or "crate"

    def delivery(self, presets: Path) -> Delivery:
        """What every song is delivered as.

        Args:   presets: `Settings.presets`
        Raises: PresetError; UsageError: it does not go together
        """
        delivery = load_preset(self.preset, presets).delivery
        delivery = self.options.applied_to(delivery) if self.options else delivery
        if problem := delivery.problem():
            raise UsageError(f"What was asked for cannot be delivered: {problem}.")
        return delivery
