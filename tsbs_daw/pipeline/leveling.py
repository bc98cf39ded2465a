"""One gain for all files of a song, so that their balance, and the sum of the stems, stay what they are."""

from __future__ import annotations

from collections.abc import Iterable

from tsbs_daw.audio.measure import Levels
from tsbs_daw.presets.delivery import Delivery

CEILING_DB = -1.0  # true peak, dBTP: what EBU R 128 and the streaming services ask for
UNLIMITED = ("wav32f",)  # formats that hold samples beyond full scale


def shared_gain(delivery: Delivery, mixture: Levels | None, files: Iterable[Levels]) -> tuple[float, tuple[str, ...]]:
    """The gain in dB that all files get, and what to say about it.

    With a target: the mixture comes to its loudness, or as near as no true peak above -1 dBTP allows.
    Without: 0, but where the format would cut off a peak beyond full scale, enough less for a true peak of -1 dBTP.

    Args: mixture: of the song itself; None: not measured, as there is no target
          files:   all that are delivered, and the sum of the stems
    """
    levels = [*files, *([mixture] if mixture else [])]
    true_peak_db = max((level.true_peak_db for level in levels if level.true_peak_db is not None), default=None)
    sample_peak_db = max((level.sample_peak_db for level in levels if level.sample_peak_db is not None), default=None)
    if true_peak_db is None:
        return 0.0, ()
    room_db = CEILING_DB - true_peak_db
    if delivery.loudness_lufs is None:
        if delivery.format in UNLIMITED or sample_peak_db <= 0:
            return 0.0, ()
        return room_db, (
            f"All files are {-room_db:.1f} dB lower: {delivery.format} cannot hold their peaks otherwise.",
        )
    target = f"The loudness of {delivery.loudness_lufs:g} LUFS"
    if mixture is None or mixture.loudness_lufs is None:
        return min(0.0, room_db), (f"{target} cannot be reached: the song is too short or too quiet to have one.",)
    wanted_db = delivery.loudness_lufs - mixture.loudness_lufs
    if wanted_db <= room_db + 0.05:  # which would be shown as 0.0
        return min(wanted_db, room_db), ()
    return room_db, (f"{target} is missed by {wanted_db - room_db:.1f} dB, which keeps all peaks below -1 dBTP.",)


def after_gain(levels: Levels, gain_db: float) -> Levels:
    """What was measured before a gain, as it is after it."""
    shifted = (
        None if level is None else level + gain_db
        for level in (levels.sample_peak_db, levels.true_peak_db, levels.rms_db, levels.loudness_lufs)
    )
    return Levels(*shifted, levels.samples)
