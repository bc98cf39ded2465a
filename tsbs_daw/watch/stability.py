"""A file is completely written when it has looked the same often enough, for long enough. No clock and no disk here."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class _Sighting:
    state: str
    since: float
    samples: int


class FileStabilityTracker:
    """Judges by what was seen, at times of a monotonic clock; never by the age of a file's mtime, which `cp -p` keeps.

    samples, span_s: a state must be seen so often, the first and the last time so far apart
    """

    def __init__(self, samples: int = 3, span_s: float = 2.0):
        self._samples, self._span_s = samples, span_s
        self._sightings: dict[str, _Sighting] = {}

    def __len__(self) -> int:
        return len(self._sightings)

    def __contains__(self, key: str) -> bool:
        return key in self._sightings

    def keys(self) -> list[str]:
        return list(self._sightings)

    def observe(self, key: str, state: str, now: float) -> bool:
        """Note how a file looks; True when it is stable."""
        sighting = self._sightings.get(key)
        if sighting is None or sighting.state != state:
            self._sightings[key] = _Sighting(state, now, 1)
            return self._samples <= 1 and self._span_s <= 0
        sighting.samples += 1
        return sighting.samples >= self._samples and now - sighting.since >= self._span_s

    def still_for_s(self, key: str, now: float) -> float:
        """How long a file has looked as it does; 0 for an unknown one."""
        sighting = self._sightings.get(key)
        return now - sighting.since if sighting else 0.0

    def forget(self, key: str) -> None:
        self._sightings.pop(key, None)
