"""Lanes: the client side of one actor each, which runs on a GPU or on a share of a node's CPU.

A lane has several calls under way, so that its actor computes while the next chunks are transferred. If a call fails,
its chunks return to the front of the backlog, from where any lane takes them. A failed lane is reopened after a pause,
unless its node is gone. A node with a different version of the program is refused with the reason.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

import tsbs_daw
from tsbs_daw.cluster.node import Hashed, NodeSeparator, Place, fingerprint, places
from tsbs_daw.core.errors import described, shown

log = logging.getLogger(__name__)

NAMESPACE = "tsbs-daw"
GROUP = 8  # maximum number of chunks in a call: with four stems, 8 MB to the node and 34 MB back
UNDER_WAY = 3  # batches of an actor under way: one is being computed, one is waiting there, one is in transit
PIECE_BYTES = 8_000_000  # size of the pieces in which a model is sent to a node
START_LIMIT_S = 180.0  # a node's first actor imports torch
CALL_LIMIT_S = 300.0
CONTROL_LIMIT_S = 30.0
MOST_TRIES = 3  # a chunk fails after this many errors reported by nodes
MOST_DEATHS = 6  # a chunk fails after this many actors died while they had it, because it may be the cause


# Return estimates inline with the result of the call. Otherwise each is copied through two object stores and two
# processes of Ray, which takes a tenth of the time to compute it.
INLINE = {"RAY_max_direct_call_object_size": "64000000", "RAY_task_rpc_inlined_bytes_limit": "64000000"}
# One heap for all threads: calls arrive in any thread, and otherwise each thread's heap would grow to full size.
ACTOR_ENVIRONMENT = {**INLINE, "MALLOC_ARENA_MAX": "1"}


class Refused(Exception):
    """A node cannot take part. The message is one sentence that names the node."""


@dataclass(frozen=True)
class Model:
    """The model that every node computes with.

    Attributes:
        sha256: Hash of its file.
        path: Its file on this machine.
        precision: Number format of matrix products.
        mark: Required precision mark of the results; see `Separator.precision_mark`.
        places: (host, path on that host) for hosts that share the folder of the file.
    """

    sha256: str
    path: str
    precision: str
    mark: str | None
    places: tuple[tuple[str, str], ...] = ()

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Model:
        return cls(**{**values, "places": tuple((host, path) for host, path in values["places"])})


@dataclass
class Item:
    """A waiting chunk.

    Attributes:
        tries: How often a node reported an error for it.
        deaths: How often an actor died while it had the chunk.
    """

    id: int
    model: Model
    stage: str
    song: int
    chunk: np.ndarray
    hash: str
    tries: int = 0
    deaths: int = 0

    def fits(self, other: Item) -> bool:
        """Return whether both can be in one call."""
        mine, others = ((i.model, i.stage, i.song, i.chunk.shape) for i in (self, other))
        return mine == others


class Backlog:
    """Queue of chunks that wait for a lane."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._items: deque[Item] = deque()

    def add(self, item: Item) -> None:
        with self._changed:
            self._items.append(item)
            self._changed.notify()

    def put_back(self, items: Sequence[Item]) -> None:
        with self._changed:
            self._items.extendleft(reversed(items))
            self._changed.notify_all()

    def take(self, limit: int, closed: threading.Event) -> list[Item]:
        """Wait for chunks and return the first ones that fit in one call; none once `closed` is set."""
        with self._changed:
            while not self._items and not closed.is_set():
                self._changed.wait(0.5)
            if closed.is_set():
                return []
            taken = [self._items.popleft()]
            while self._items and len(taken) < limit and self._items[0].fits(taken[0]):
                taken.append(self._items.popleft())
            return taken


@dataclass(frozen=True)
class Hooks:
    """Callbacks of a lane.

    Attributes:
        done: Called with a chunk and its estimate.
        failed: Called with a chunk that cannot be computed, and the reason.
        trouble: Called with a sentence about a node.
    """

    done: Callable[[Item, Hashed], None]
    failed: Callable[[Item, str], None]
    trouble: Callable[[str], None] = log.warning


@dataclass
class Lane:
    """The connection to one actor. `open` starts the actor; if the actor fails, the lane closes."""

    ray: Any
    place: Place
    owner: str
    hooks: Hooks
    backlog: Backlog = field(default_factory=Backlog)
    batch: int = 1
    ready: bool = False
    refused: bool = False

    def __post_init__(self) -> None:
        self.closed = threading.Event()
        self._loaded: dict[Model, int] = {}
        self._loading = threading.Lock()
        self._threads = 0
        self.actor: Any = None

    def open(self, model: Model | None = None) -> None:
        """Start the actor and the lane's threads. Blocks, so call it in a thread. A failure closes the lane."""
        try:
            self.start()
            if model is not None:
                self._ensure(model)
            self.ready = True
            self._add_threads()
        except Refused as refusal:
            self.refused = True
            self._close(str(refusal))
        except Exception as error:  # Ray raises various types if an actor cannot start
            self._close(f"The node {self.place.text} cannot compute now ({reason_of(error)}).")

    def start(self, actor: Any = None) -> dict[str, Any]:
        """Start a new actor, or use a running one, and check its program.

        Returns:
            The actor's `hello`.

        Raises:
            Refused, RayError: The node runs another program, or the actor failed.
        """
        self.actor = actor or self._new_actor()
        hello: dict[str, Any] = self.ray.get(self.actor.hello.remote(), timeout=START_LIMIT_S)
        check_program(self.place, hello)
        return hello

    def _new_actor(self) -> Any:
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        place = self.place
        kind = self.ray.remote(NodeSeparator)
        return kind.options(
            name=f"{place.node}/{place.share}/{self.owner}",
            num_cpus=place.cpus,
            num_gpus=place.gpus,
            max_concurrency=32,
            runtime_env={"env_vars": ACTOR_ENVIRONMENT},
            scheduling_strategy=NodeAffinitySchedulingStrategy(place.node, soft=False),
        ).remote()

    def load(self, model: Model) -> dict[str, Any]:
        """Load a model on the node, and send its file if the node lacks it.

        Raises:
            Refused, RayError: The node computes in another number format, or the actor failed.
        """
        if not self._get(self.actor.has.remote(model.sha256)) and not self._is_in_place(model):
            size, offset = Path(model.path).stat().st_size, 0
            with Path(model.path).open("rb") as file:
                while offset < size:
                    piece = file.read(PIECE_BYTES)
                    last = offset + len(piece) >= size
                    self._get(self.actor.receive.remote(model.sha256, offset, piece, last))
                    offset += len(piece)
        facts = self._get(self.actor.load.remote(model.sha256, model.precision), START_LIMIT_S)
        if facts["mark"] != model.mark:
            raise Refused(
                f"The node {self.place.text} computes in {facts['mark'] or 'float32'} and the daemon in "
                f"{model.mark or 'float32'}; name one format with --precision."
            )
        return facts

    def _is_in_place(self, model: Model) -> bool:
        """Return whether the node reads the model from a shared folder. Reports a file there that is not the model."""
        names = self.place.name.split()  # host and address
        path = next((path for host, path in model.places if host in names), None)
        if path is None:
            return False
        why = self._get(self.actor.use.remote(model.sha256, path, Path(model.path).stat().st_size), START_LIMIT_S)
        if why:
            self.hooks.trouble(f"{shown(path)} on {self.place.name} {why}; the model is sent instead.")
        return not why

    def compute(self, items: Sequence[Item]) -> list[Hashed]:
        """Compute chunks of one model, stage and song on the actor.

        Raises:
            Refused, RayError: See `load`; RayError also wraps the exceptions of `NodeSeparator.compute`.
        """
        first = items[0]
        self._ensure(first.model)
        chunks = [(item.chunk, item.hash) for item in items]
        call = self.actor.compute.remote(first.model.sha256, first.model.precision, first.stage, first.song, chunks)
        return self.ray.get(call, timeout=CALL_LIMIT_S)

    def end(self) -> None:
        """Kill the actor; its chunks return to the backlog."""
        self.ready = False
        self.closed.set()
        if self.actor is not None:
            try:
                self.ray.kill(self.actor)
            except Exception as error:  # the node or the head is gone
                log.debug("%s: %s", self.place.text, error)

    @property
    def capacity(self) -> int:
        """Number of chunks that the lane can have under way."""
        return UNDER_WAY * self.batch if self.ready else 0

    def _get(self, reference: Any, limit_s: float = CONTROL_LIMIT_S) -> Any:
        return self.ray.get(reference, timeout=limit_s)

    def _ensure(self, model: Model) -> None:
        with self._loading:
            if model not in self._loaded:
                self._loaded[model] = self.load(model)["batch"]
                self.batch = max(self.batch, self._loaded[model])

    def _add_threads(self) -> None:
        """Start threads until there is one for each call that may be under way."""
        wanted = UNDER_WAY * -(-self.batch // GROUP)
        while self._threads < wanted:
            self._threads += 1
            threading.Thread(target=self._serve, name=f"lane-{self.place.name}", daemon=True).start()

    def _serve(self) -> None:
        while items := self.backlog.take(min(self.batch, GROUP), self.closed):
            try:
                found = self.compute(items)
            except Refused as refusal:
                self.refused = True
                self.backlog.put_back(items)
                self._close(str(refusal))
            except Exception as error:
                self._lose(items, error)
            else:
                for item, estimate in zip(items, found, strict=True):
                    self.hooks.done(item, estimate)
                self._add_threads()

    def _lose(self, items: Sequence[Item], error: Exception) -> None:
        """Return chunks to the backlog, except those that failed too often, and close the lane."""
        cause, kept = getattr(error, "cause", None), []
        for item in items:
            item.tries += int(cause is not None)
            item.deaths += int(cause is None)
            if item.tries >= MOST_TRIES or item.deaths >= MOST_DEATHS:
                self.hooks.failed(item, reason_of(error))
            else:
                kept.append(item)
        self.backlog.put_back(kept)
        if not self.closed.is_set():
            self._close(f"The node {self.place.text} failed ({reason_of(error)}); its chunks go elsewhere.")

    def _close(self, sentence: str) -> None:
        if not self.closed.is_set():
            self.hooks.trouble(sentence)
        self.end()


def check_program(place: Place, hello: dict[str, Any]) -> None:
    """Check that a node runs the same program.

    Raises:
        Refused: It runs another version, or other code that computes.
    """
    if hello["version"] != tsbs_daw.__version__:
        raise Refused(
            f"The node {place.name} runs tsbs-daw {hello['version']} and this machine {tsbs_daw.__version__}; "
            "install the same version there."
        )
    if hello["fingerprint"] != fingerprint():
        raise Refused(
            f"The node {place.name} runs tsbs-daw {hello['version']} with other code for separation; "
            "install the same code there."
        )


def reason_of(error: BaseException) -> str:
    """Describe an error in one line; for an exception of Ray, its cause in the actor."""
    cause = getattr(error, "cause", None)
    text = described(cause if isinstance(cause, BaseException) else error)
    return text.partition(" class_name:")[0].rstrip(".")  # Ray's details about a dead actor fill a screen


class Lanes:
    """The lanes of a whole cluster. Call `settle` once a second.

    Args:
        owner: Makes the names of this daemon's actors unique.
        hooks: Called by every lane.
    """

    REOPEN_S = (1.0, 60.0)  # first and longest pause: doubles with each failure; the longest after a refusal

    def __init__(self, owner: str, hooks: Hooks):
        self._owner, self._hooks = owner, hooks
        self.backlog = Backlog()
        self._lanes: dict[Place, Lane] = {}
        self._failures: dict[Place, int] = {}
        self._reopen_at: dict[Place, float] = {}
        self._opened = 0
        self.model: Model | None = None  # the model that a new lane loads when it opens

    def add(self, item: Item) -> None:
        """Enqueue a chunk. Lanes that open later load its model immediately."""
        self.model = item.model
        self.backlog.add(item)

    @property
    def capacity(self) -> int:
        return sum(lane.capacity for lane in self._lanes.values())

    @property
    def ready(self) -> int:
        return sum(lane.ready for lane in self._lanes.values())

    def settle(self, ray: Any, nodes: Sequence[dict[str, Any]], now: float) -> None:
        """Close the lanes of nodes that are gone, and open missing lanes."""
        wanted = set(places(nodes))
        for place, lane in list(self._lanes.items()):
            if place not in wanted:
                lane.end()
            if lane.closed.is_set():
                del self._lanes[place]
                self._note_failure(lane, now)
            elif lane.ready:
                self._failures.pop(place, None)
        for place in wanted - self._lanes.keys():
            if now >= self._reopen_at.get(place, now):
                self._open(ray, place)

    def _open(self, ray: Any, place: Place) -> None:
        self._opened += 1
        lane = Lane(ray, place, f"{self._owner}.{self._opened}", self._hooks, self.backlog)
        self._lanes[place] = lane
        threading.Thread(target=lane.open, args=(self.model,), daemon=True, name=f"open-{place.name}").start()

    def _note_failure(self, lane: Lane, now: float) -> None:
        first_s, longest_s = self.REOPEN_S
        failures = self._failures[lane.place] = self._failures.get(lane.place, 0) + 1
        wait_s = longest_s if lane.refused else min(first_s * 2.0 ** min(failures - 1, 10), longest_s)
        self._reopen_at[lane.place] = now + wait_s
