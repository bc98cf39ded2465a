"""What a crate is asked for."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal


@dataclass(frozen=True)
class CrateRequest:
    """folder: where the songs are; out: where everything goes; both absolute. The rest as in a job."""

    folder: Path
    out: Path
    preset: str = "crate"
    model: str = "default"
    stage: Literal["full", "mask"] = "full"
    null: bool = False
    salvage: bool = False

    @property
    def name(self) -> str:
        """What the crate is called."""
        return self.folder.name or "crate"
