"""What a preset asks for: outputs, each a mix of stems sent through a chain of effects. Plain values."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from tsbs_daw.effects.table import PLUGIN, Value


@dataclass(frozen=True)
class Effect:
    """One effect of a chain.

    name:       pedalboard's name, `Chain`, `Mix`, or `VST3`
    parameters: pedalboard's names and values; for `VST3` the plug-in's own names
    children:   the effects inside a `Chain` (one after the other) or a `Mix` (side by side, summed)
    path:       for `VST3`: an absolute path, or a file name that is looked for in the system's plug-in folders
    plugin:     for `VST3`: which plug-in of a file that holds several; "" when it holds one
    """

    name: str
    parameters: Mapping[str, Value] = field(default_factory=dict)
    children: tuple[Effect, ...] = ()
    path: str = ""
    plugin: str = ""

    def __str__(self) -> str:
        return f"{self.name} ({self.path})" if self.name == PLUGIN else self.name

    def walk(self) -> Iterator[Effect]:
        """This effect and all inside it."""
        yield self
        for child in self.children:
            yield from child.walk()


@dataclass(frozen=True)
class Output:
    """One delivered file.

    sources:  names of the stems that are summed
    gain_db:  a gain for each of them, in the same order
    chain:    effects, in order; none: the plain sum
    color:    of the track in the DAW, #rrggbb
    """

    name: str
    sources: tuple[str, ...]
    gain_db: tuple[float, ...]
    chain: tuple[Effect, ...] = ()
    color: str = "#9e9e9e"

    def effects(self) -> Iterator[Effect]:
        """Every effect, those inside others too."""
        for effect in self.chain:
            yield from effect.walk()

    @property
    def uses_plugin(self) -> bool:
        """Whether the chain holds a plug-in, and so must run in a process of its own."""
        return any(effect.name == PLUGIN for effect in self.effects())
