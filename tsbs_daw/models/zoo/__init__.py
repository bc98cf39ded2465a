"""The zoo: descriptions of checkpoints that `tsbs-daw models pull` knows, one YAML file each, named like the model.

The bundled ones lie in this folder; a user's own lie in the folder of models. A description says which network it is,
where its weights are, which file they must be, and under which licence, with the source of that statement. No weights
are bundled.
"""

from __future__ import annotations

import logging
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from tsbs_daw.core.documents import Kind as DocumentKind
from tsbs_daw.core.documents import read_model
from tsbs_daw.core.errors import SettingsError, UsageError

log = logging.getLogger(__name__)

SUFFIX = ".yaml"
_DESCRIPTION = DocumentKind("model description", SettingsError, "it needs at least `network:`, `stems:` and `url:`")


class Description(BaseModel):
    """A checkpoint that can be pulled.

    Attributes:
        name: That of its file, without the ending.
        network: A key of `kinds.KINDS`.
        config: What the network needs to know beside its weights; `{size: full}` for TS-BSMamba2.
        complement: The stem that is the mixture without the others, for a network of one stem.
        url: Where its weights are: a safetensors file or a pickle. None for the bundled model.
        size_bytes: Of the download, exactly or nearly; checked against the free space.
        sha256: Of the download, where one is published. None: the first pull records it.
        licence: One sentence about the weights; `licence_source` says where that is stated.
        accept_licence: Whether `pull` asks for `--accept-licence`.
        standardised: The weights expect chunks of zero mean and unit deviation.
        sdr_db: Published or measured SDR by stem; `measured_on` says on what, which kind, and by whom.
        memory_bytes: What a separation needs, measured on a processor.
        cost: Its time for a second of sound over that of the bundled model, measured on a processor; 0: unknown.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = ""
    description: Annotated[str, Field(min_length=1, max_length=300)]
    licence: Annotated[str, Field(min_length=1, max_length=600)]
    licence_source: str = ""
    accept_licence: bool = False
    network: Literal["ts-bs-mamba2", "htdemucs", "bs-roformer", "mel-band-roformer"] = "ts-bs-mamba2"
    config: dict[str, Any] = Field(default_factory=dict)
    stems: tuple[str, ...] = ("drums", "bass", "other", "vocals")
    complement: str | None = None
    standardised: bool = False
    url: Annotated[str, Field(pattern=r"^https?://\S+$")] | None = None
    size_bytes: Annotated[int, Field(ge=0, le=4 << 30)] = 0
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] | None = None
    sdr_db: dict[str, float] = Field(default_factory=dict)
    measured_on: str = ""
    memory_bytes: Annotated[int, Field(ge=0)] = 0
    cost: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0

    @model_validator(mode="after")
    def _complement_is_a_stem(self) -> Description:
        if self.complement is not None and self.complement not in self.stems:
            raise ValueError(f"the complement {self.complement!r} is none of the stems {', '.join(self.stems)}")
        return self

    def values(self) -> dict[str, Any]:
        """What `Kind.config` takes."""
        found: dict[str, Any] = {**self.config, "stems": list(self.stems)}
        if self.complement is not None:
            found["complement"] = self.complement
        if self.standardised:
            found["standardised"] = True
        return found


def read_description(path: Path) -> Description:
    """A file's description, under the file's name. Raises: SettingsError: with line and column"""
    found = read_model(path, Description, _DESCRIPTION)
    if found.url is None:
        raise SettingsError("`url:` is missing; say where the weights are.", path)
    return found.model_copy(update={"name": path.stem})


@cache
def bundled() -> dict[str, Description]:
    """The descriptions of this package, by name."""
    return {path.stem: read_description(path) for path in sorted(Path(__file__).parent.glob(f"*{SUFFIX}"))}


def own(folder: Path) -> dict[str, Description]:
    """The user's descriptions in a folder, by name. One that cannot be used is logged and left out."""
    found = {}
    for path in sorted(folder.glob(f"*{SUFFIX}")):
        if path.stem in bundled() or path.stem == "default":
            log.warning("%s has the name of a known model and is not used; rename it", path)
            continue
        try:
            found[path.stem] = read_description(path)
        except UsageError as error:
            log.warning("%s It is not listed.", error)
    return found
