"""What is known of a song: tempo, beats, key, levels, silences, sections. Every doubtful figure says so.

Times are seconds from the song's first sample. A confidence is 0 (a guess) to 1 (certain).
"""

from __future__ import annotations

from typing import Final, Literal

from pydantic import BaseModel, ConfigDict, Field

SCHEMA: Final = 1


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)


class TempoChange(_Part):
    """From at_s on, the song goes at bpm."""

    at_s: float
    bpm: float = Field(gt=0)


class Tempo(_Part):
    """bpm: None where there is no pulse; changes: the tempo map, first entry at the first beat; steady: one entry."""

    bpm: float | None
    confidence: float = Field(ge=0, le=1)
    doubtful: bool
    steady: bool = True
    source: str = Field("mixture", description="what was listened to: mixture, or a stem's name")
    changes: tuple[TempoChange, ...] = ()


class Beats(_Part):
    """times_s: every beat; downbeats_s: those that begin a bar; beats_per_bar: None where it cannot be trusted."""

    times_s: tuple[float, ...] = ()
    confidence: float = Field(0.0, ge=0, le=1)
    downbeats_s: tuple[float, ...] = ()
    beats_per_bar: int | None = None
    meter_confidence: float = Field(0.0, ge=0, le=1)
    meter_doubtful: bool = True


class Key(_Part):
    """tonic: C, Db, D ..., spelt as the key is (C# minor, Db major); camelot: 1A..12A minor, 1B..12B major."""

    tonic: str
    mode: Literal["major", "minor"]
    camelot: str
    confidence: float = Field(ge=0, le=1)
    doubtful: bool

    @property
    def name(self) -> str:
        return f"{self.tonic} {self.mode}"


class Loudness(_Part):
    """EBU R128; None: silence."""

    integrated_lufs: float | None
    range_lu: float | None
    true_peak_db: float | None


class Span(_Part):
    start_s: float
    end_s: float


class StemSound(_Part):
    """Where a stem sounds. first_sound_s: None if it never does; silences: spans without it, one second or more."""

    loudness: Loudness
    first_sound_s: float | None
    active_share: float = Field(ge=0, le=1)
    silences: tuple[Span, ...] = ()


class Section(_Part):
    """A stretch of the song between two changes of what is heard; label: A, B, A ... like sounds like."""

    start_s: float
    end_s: float
    label: str
    confidence: float = Field(ge=0, le=1)


class Analysis(_Part):
    """A song's analysis. key: None where nothing has a pitch; intro_s: until the first onset; notes: plain warnings."""

    schema_version: Literal[1] = Field(SCHEMA, alias="schema")
    duration_s: float
    tempo: Tempo
    beats: Beats
    key: Key | None
    loudness: Loudness
    intro_s: float
    stems: dict[str, StemSound] = Field(default_factory=dict)
    sections: tuple[Section, ...] = ()
    notes: tuple[str, ...] = ()
