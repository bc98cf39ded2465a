"""The outputs of a preset: each a mix of stems with a chain of effects. Plain values."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from tsbs_daw.effects.table import PLUGIN, Value


@dataclass(frozen=True)
class Effect:
    """One effect of a chain.

    Attributes:
        name: pedalboard's name, `Chain`, `Mix`, or `VST3`
        parameters: pedalboard's names and values; for `VST3` the plug-in's own names
        children: the effects inside a `Chain` (in series) or a `Mix` (in parallel, summed)
        path: for `VST3`: an absolute path, or a file name to search for in the system's plug-in folders
        plugin: for `VST3`: which plug-in of a file that holds several; "" if it holds one
    """

    name: str
    parameters: Mapping[str, Value] = field(default_factory=dict)
    children: tuple[Effect, ...] = ()
    path: str = ""
    plugin: str = ""

    def __str__(self) -> str:
        return f"{self.name} ({self.path})" if self.name == PLUGIN else self.name

    def walk(self) -> Iterator[Effect]:
        """This effect and all effects inside it."""
        yield self
        for child in self.children:
            yield from child.walk()


@dataclass(frozen=True)
class Output:
    """One delivered file.

    Attributes:
        sources: names of the stems to sum
        gain_db: a gain for each of them, in the same order
        chain: effects, in order; empty: the plain sum
        color: of the track in the DAW, #rrggbb
    """

    name: str
    sources: tuple[str, ...]
    gain_db: tuple[float, ...]
    chain: tuple[Effect, ...] = ()
    color: str = "#9e9e9e"

    def effects(self) -> Iterator[Effect]:
        """Every effect, including those inside others."""
        for effect in self.chain:
            yield from effect.walk()

    @property
    def uses_plugin(self) -> bool:
        """Whether the chain contains a plug-in and so must run in a separate process."""
        return any(effect.name == PLUGIN for effect in self.effects())
