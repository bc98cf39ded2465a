"""Flags that change, for one run, what a preset's `delivery:` says of the files."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Annotated

import typer

from tsbs_daw.core.errors import UsageError
from tsbs_daw.presets.delivery import FIELDS, FORMATS, LOUDEST_LUFS, QUIETEST_LUFS, SESSIONS

if TYPE_CHECKING:
    from tsbs_daw.contracts.job import DeliveryOptions

NONE = "none"
_FIELDS = [f"{{{field}}}" for field in FIELDS]

FormatName = Enum("FormatName", {name: name for name in FORMATS}, type=str)

Format = Annotated[FormatName | None, typer.Option("--format", help="Of the files, not the preset's.")]
Loudness = Annotated[
    float | None,
    typer.Option(
        metavar="LUFS", min=QUIETEST_LUFS, max=LOUDEST_LUFS,
        help="Where one gain for all files of a song takes it, not the preset's.",
    ),
]  # fmt: skip
Sessions = Annotated[
    str | None,
    typer.Option(metavar="NAMES", help=f"`{'`, `'.join(SESSIONS)}`, both with a comma, or `none`; not the preset's."),
]
Loops = Annotated[
    str | None,
    typer.Option(metavar="BARS", help="Loops of so many bars, `4,8,16`, of every stem, or `none`; not the preset's."),
]
StemMp4 = Annotated[
    bool | None,
    typer.Option("--stem-mp4/--no-stem-mp4", help="A .stem.mp4 of each song, for DJ decks, whatever the preset says."),
]
Names = Annotated[
    str | None,
    typer.Option(metavar="TEMPLATE", help=f"Of the files, not the preset's; made of {', '.join(_FIELDS)}."),
]


@dataclass(frozen=True)
class Changes:
    """What is to be different from the preset's `delivery:`, for one run."""

    form: Format = None
    loudness: Loudness = None
    sessions: Sessions = None
    loops: Loops = None
    stem_mp4: StemMp4 = None
    names: Names = None

    def options(self) -> DeliveryOptions | None:
        """What was asked for; None if nothing was. Raises: UsageError: it cannot be"""
        from pydantic import ValidationError

        from tsbs_daw.contracts.job import DeliveryOptions

        asked = {
            "format": self.form and self.form.value,
            "loudness_lufs": self.loudness,
            "sessions": _parts(self.sessions),
            "loops": _parts(self.loops),
            "stem_mp4": self.stem_mp4,
            "names": self.names,
        }
        asked = {name: value for name, value in asked.items() if value is not None}
        try:
            return DeliveryOptions(**asked) if asked else None
        except ValidationError as error:
            first = error.errors()[0]
            name = str(first["loc"][0]).removesuffix("_lufs").replace("_", "-")
            said = first["msg"].removeprefix("Value error, ")
            raise UsageError(f"--{name} {first['input']!r} cannot be: {said[:1].lower()}{said[1:]}.") from error


def _parts(text: str | None) -> tuple[str, ...] | None:
    """`4,8` as ("4", "8"); `none` as nothing; None where nothing was said."""
    if text is None or text.strip() == NONE:
        return None if text is None else ()
    return tuple(dict.fromkeys(part.strip() for part in text.split(",")))
