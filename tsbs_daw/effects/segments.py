"""Run an effect that only works on a whole song, without ever holding a whole song.

Audio is float32 (channels, samples). pedalboard's pitch shifter and its GSM codec clear part of their state in every
call, so that a stream through them falls apart (measured: silence from the one, 20 ms lost per call in the other).
Here the song is cut into long segments that overlap; each is rendered in one call, and two neighbours are joined
where the overlap is quietest, by a short crossfade. Cuts are counted from the song's start, so the result does not
depend on the caller's blocks.

    context | segment k                    | context
                                   context | segment k + 1                    | context
                                   ^^^^^^^^^^^^^^^^^ the join is in the middle half of this overlap
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from tsbs_daw.effects.effect_errors import build_instances
from tsbs_daw.effects.output import Effect

SEGMENT_S = 20.0
CONTEXT_S = 0.5
FADE_S = 0.04
BLOCK_SAMPLES = 8192

Check = Callable[[np.ndarray, Effect], np.ndarray]


class SegmentedStage:
    """Args: check: looks at what the effect gave, and raises when it is not sound"""

    def __init__(self, effect: Effect, sample_rate: int, channels: int, check: Check):
        self.effect, self.sample_rate, self.check = effect, sample_rate, check
        self.instances = build_instances(effect, sample_rate, channels, BLOCK_SAMPLES)
        self.segment, self.context = round(SEGMENT_S * sample_rate), round(CONTEXT_S * sample_rate)
        self.fade = round(FADE_S * sample_rate)
        # Input from one context before the next segment on; before the song there is silence.
        self._waiting = np.zeros((channels, self.context), np.float32)
        self._overlap: np.ndarray | None = None  # the last rendering, over the overlap with the next

    def push(self, block: np.ndarray) -> np.ndarray:
        parts = [block[:, :0]]
        self._waiting = np.concatenate([self._waiting, block], axis=1)
        while self._waiting.shape[1] >= self.segment + 2 * self.context:
            rendered = self._render(self._waiting[:, : self.segment + 2 * self.context])
            parts.append(self._joined(rendered)[:, : -2 * self.context])
            self._overlap = rendered[:, self.segment :]
            self._waiting = self._waiting[:, self.segment :]
        return np.concatenate(parts, axis=1)

    def finish(self) -> np.ndarray:
        # A segment is rendered only when its right context has come too, so at least one context is waiting here.
        rest = self._joined(self._render(self._waiting))
        self._waiting, self._overlap = self._waiting[:, :0], None
        return rest

    def _joined(self, rendered: np.ndarray) -> np.ndarray:
        """The rendering from where the output stands: its left overlap joined with the last one's right overlap."""
        if self._overlap is None:
            return rendered[:, self.context :]
        head = rendered[:, : 2 * self.context]
        return np.concatenate([join(self._overlap, head, self.fade), rendered[:, 2 * self.context :]], axis=1)

    def _render(self, block: np.ndarray) -> np.ndarray:
        """The effect on one block in one call, of the same length."""
        done = self.instances.process(np.ascontiguousarray(block), self.sample_rate, BLOCK_SAMPLES, reset=True)
        return self.check(done, self.effect)


def join(before: np.ndarray, after: np.ndarray, fade: int) -> np.ndarray:
    """Two renderings of the same stretch as one: the first, then the second, crossfaded where both are quietest.

    The gains keep the power: a and 1 - a are divided by sqrt(a^2 + (1 - a)^2 + 2 r a (1 - a)), r being the correlation
    of the two. Equal renderings (r = 1) are joined without any change.
    """
    samples = before.shape[1]
    energy = (np.square(before, dtype=np.float64) + np.square(after, dtype=np.float64)).sum(axis=0)
    first, last = samples // 4, max(3 * samples // 4 - fade, samples // 4 + 1)
    sums = np.concatenate([[0.0], np.cumsum(energy)])
    start = first + int(np.argmin(sums[first + fade : last + fade] - sums[first:last]))
    here, there = before[:, start : start + fade], after[:, start : start + fade]
    power = np.sqrt(float(np.vdot(here, here)) * float(np.vdot(there, there)))
    likeness = max(float(np.vdot(here, there)) / power, 0.0) if power > 0 else 1.0
    rising = np.arange(1, fade + 1) / (fade + 1)
    falling = 1 - rising
    gain = 1 / np.sqrt(rising**2 + falling**2 + 2 * likeness * rising * falling)
    crossfade = (here * falling + there * rising) * gain
    return np.concatenate([before[:, :start], crossfade, after[:, start + fade :]], axis=1, dtype=np.float32)
