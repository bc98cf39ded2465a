"""Ray as far as lanes need it, in this process: actors that are plain objects, and die when a test says so."""

from __future__ import annotations

import sys
import types
from collections.abc import Callable
from typing import Any

import pytest

from tsbs_daw.cluster import lanes


class ActorDied(Exception):
    """What a call of a dead actor raises."""


class TaskError(Exception):
    """What a call raises whose method raised; `cause` is what that was, as Ray has it."""

    def __init__(self, cause: Exception):
        super().__init__(str(cause))
        self.cause = cause


class _Method:
    def __init__(self, actor: Actor, name: str):
        self._actor, self._name = actor, name

    def remote(self, *values: Any) -> Callable[[], Any]:
        return lambda: self._actor.call(self._name, *values)


class Actor:
    """before: called with (name, values) before each method, and may raise"""

    def __init__(self, real: Any, before: Callable[[str, tuple[Any, ...]], None]):
        self._real, self._before, self.dead = real, before, False

    def __getattr__(self, name: str) -> _Method:
        return _Method(self, name)

    def call(self, name: str, *values: Any) -> Any:
        if self.dead:
            raise ActorDied("the actor died")
        self._before(name, values)
        try:
            return getattr(self._real, name)(*values)
        except Exception as error:
            raise TaskError(error) from error


class FakeRay:
    """Args: make: makes the object of an actor; before: see `Actor`"""

    def __init__(self, make: Callable[[], Any], before: Callable[[str, tuple[Any, ...]], None] = lambda *_: None):
        self.make, self.before = make, before
        self.actors: list[Actor] = []
        self.options: list[dict[str, Any]] = []  # of each actor

    def remote(self, kind: type) -> Any:
        return types.SimpleNamespace(options=self._with_options)

    def _with_options(self, **options: Any) -> Any:
        self.options.append(options)
        return types.SimpleNamespace(remote=self._start)

    def _start(self) -> Actor:
        self.actors.append(Actor(self.make(), self.before))
        return self.actors[-1]

    def get(self, call: Callable[[], Any], timeout: float) -> Any:
        return call()

    def kill(self, actor: Actor) -> None:
        actor.dead = True


def node(number: int = 1, **resources: float) -> dict[str, Any]:
    """As `ray.nodes()` describes one."""
    return {
        "NodeID": f"{number:056x}",
        "Alive": True,
        "NodeManagerHostname": f"studio-{number}",
        "NodeManagerAddress": f"10.0.0.{number}",
        "Resources": resources or {"CPU": 1.0},
    }


@pytest.fixture
def without_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    """What lanes import of Ray itself."""
    module = types.ModuleType("ray.util.scheduling_strategies")
    module.NodeAffinitySchedulingStrategy = lambda node, soft: (node, soft)
    for name in ("ray", "ray.util"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setattr(lanes, "PIECE_BYTES", 10_000)
