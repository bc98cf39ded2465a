"""The analysis of a song: tempo, beats, key, levels, silences, sections. Doubtful values are flagged.

Times are in seconds from the song's first sample. A confidence is between 0 (a guess) and 1 (certain).
"""

from __future__ import annotations

from typing import Final, Literal

from pydantic import BaseModel, ConfigDict, Field

SCHEMA: Final = 1


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)


class TempoChange(_Part):
    """A tempo change.

    Attributes:
        at_s: Where the tempo starts.
        bpm: The tempo from there.
    """

    at_s: float
    bpm: float = Field(gt=0)


class Tempo(_Part):
    """The tempo of a song.

    Attributes:
        bpm: None if there is no pulse.
        confidence: Of `bpm`.
        doubtful: `bpm` is more likely wrong than usual.
        steady: The tempo map has only one entry.
        source: The audio that was analysed: the mixture, or a stem.
        changes: The tempo map; the first entry is at the first beat.
    """

    bpm: float | None
    confidence: float = Field(ge=0, le=1)
    doubtful: bool
    steady: bool = True
    source: str = Field("mixture", description="The audio that was analysed: mixture, or a stem's name.")
    changes: tuple[TempoChange, ...] = ()


class Beats(_Part):
    """The beats of a song.

    Attributes:
        times_s: Every beat.
        confidence: Of the beats.
        downbeats_s: The beats that begin a bar.
        beats_per_bar: None if it is unreliable.
        meter_confidence: Of the downbeats and `beats_per_bar`.
        meter_doubtful: The meter is more likely wrong than usual.
    """

    times_s: tuple[float, ...] = ()
    confidence: float = Field(0.0, ge=0, le=1)
    downbeats_s: tuple[float, ...] = ()
    beats_per_bar: int | None = None
    meter_confidence: float = Field(0.0, ge=0, le=1)
    meter_doubtful: bool = True


class Key(_Part):
    """The key of a song.

    Attributes:
        tonic: C, Db, D ..., in the usual spelling of the key (C# minor, Db major).
        mode: Major or minor.
        camelot: 1A to 12A for minor, 1B to 12B for major.
        confidence: Of the key.
        doubtful: The key is more likely wrong than usual.
    """

    tonic: str
    mode: Literal["major", "minor"]
    camelot: str
    confidence: float = Field(ge=0, le=1)
    doubtful: bool

    @property
    def name(self) -> str:
        return f"{self.tonic} {self.mode}"


class Loudness(_Part):
    """Loudness after EBU R128. None: silence.

    Attributes:
        integrated_lufs: Integrated loudness.
        range_lu: Loudness range.
        true_peak_db: True peak, relative to full scale.
    """

    integrated_lufs: float | None
    range_lu: float | None
    true_peak_db: float | None


class Span(_Part):
    """A stretch of time."""

    start_s: float
    end_s: float


class StemSound(_Part):
    """When a stem is audible.

    Attributes:
        loudness: Of the whole stem.
        first_sound_s: When it is first audible; None if it never is.
        active_share: Share of the song in which it is audible.
        silences: Spans of one second or more without it.
    """

    loudness: Loudness
    first_sound_s: float | None
    active_share: float = Field(ge=0, le=1)
    silences: tuple[Span, ...] = ()


class Section(_Part):
    """A stretch of the song between two changes in its sound.

    Attributes:
        start_s: Where it starts.
        end_s: Where it ends.
        label: A, B, A, ...; sections that sound alike have the same label.
        confidence: Amount of change at its start, or for the first section at its end.
    """

    start_s: float
    end_s: float
    label: str
    confidence: float = Field(ge=0, le=1)


class Analysis(_Part):
    """The analysis of a song.

    Attributes:
        schema_version: Version of this document.
        duration_s: Length of the song.
        tempo: Tempo and tempo map.
        beats: Beats and bars.
        key: None if nothing has a pitch.
        loudness: Of the whole song.
        intro_s: Time until the song is first audible; its duration if it is silent.
        stems: Activity of each stem, by name.
        sections: In order.
        notes: Warnings in plain words.
    """

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
