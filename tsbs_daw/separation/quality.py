"""What `--quality fast|normal|best` turns on.

Each step was measured on real songs (`tsbs-daw evaluate --real --compare-quality`; the table is in docs/models.md), and
a step that wins nothing is not here. All of them work on what any network gives.
"""

from __future__ import annotations

from dataclasses import dataclass

from tsbs_daw.core.errors import UsageError, did_you_mean

NORMAL = "normal"


@dataclass(frozen=True)
class Steps:
    """The steps of a separation.

    Attributes:
        overlap: Of a chunk, shared with the next one; None: the separator's own.
        mask: The stems are shares of the mixture, by how loud the network's are at each time and frequency.
    """

    overlap: float | None = None
    mask: bool = False


QUALITIES = {"fast": Steps(overlap=0.05), NORMAL: Steps(), "best": Steps(mask=True)}


def steps_of(quality: str | Steps) -> Steps:
    """The steps of a quality by name. Raises: UsageError: no such quality"""
    if isinstance(quality, Steps):
        return quality
    if quality not in QUALITIES:
        closest = did_you_mean(quality, list(QUALITIES)) or f"; choose from {', '.join(QUALITIES)}."
        raise UsageError(f"There is no quality {quality!r}{closest}")
    return QUALITIES[quality]
