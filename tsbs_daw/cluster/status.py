"""The nodes of a cluster, and trials of each: for `cluster status` and `doctor --cluster`.

Both query in a child process (`python -m tsbs_daw.cluster.status`), because Ray kills its client process when the head
stays away.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from tsbs_daw.core import child
from tsbs_daw.core.errors import ClusterUnavailable, described

ASK_LIMIT_S = 600.0
LARGEST_DIFFERENCE = {"float32": 1e-4, "bfloat16": 3e-2}  # from this machine's estimate, relative to its peak
TRIAL_S = 1.0
TRIALS_AT_ONCE = 16


def ask(address: str, model: Path | None = None, precision: str = "auto") -> dict[str, Any]:
    """Query the nodes of a cluster and their actors; with a model, also have each node compute a trial chunk.

    Args:
        address: "auto", or host:port of the head.
        model: The model for the trials; None for no trials.
        precision: Number format of matrix products.

    Returns:
        {"address", "nodes": [{"name", "address", "cpus", "gpus", "card", "actors": [...]}], "trials": [...]}

    Raises:
        ClusterUnavailable: The cluster cannot be reached.
    """
    request = {"address": address, "model": None if model is None else str(model), "precision": precision}
    try:
        return child.ask(child.python("tsbs_daw.cluster.status"), request, limit_s=ASK_LIMIT_S)
    except child.ChildRefused as refusal:
        raise ClusterUnavailable(str(refusal)) from refusal
    except child.ChildError as error:
        raise ClusterUnavailable(
            f"The cluster {address} does not answer ({error}); check that its head runs, and `ray status` there."
        ) from error


# In the child process


def work(request: dict[str, Any]) -> dict[str, Any]:
    """Answer a request of `ask`.

    Raises:
        ClusterUnavailable: The cluster cannot be reached.
    """
    from tsbs_daw.cluster.bridge import connect

    try:
        ray = connect(request["address"])
        nodes = ray.nodes()
    except Exception as error:  # Ray raises various types for a missing head, a missing token or a version mismatch
        raise ClusterUnavailable(
            f"Cannot reach the cluster {request['address']} ({described(error)}); start its head, or check the address "
            "and the token."
        ) from error
    actors = find_actors(ray)
    found: dict[str, Any] = {"address": request["address"], "nodes": [describe(ray, node, actors) for node in nodes]}
    if request["model"] is not None:
        found["trials"] = trials(ray, nodes, actors, Path(request["model"]), request["precision"])
    return found


def find_actors(ray: Any) -> dict[tuple[str, int], Any]:
    """Return the running actors of all daemons that use the cluster, by node and share."""
    from ray.util import list_named_actors

    found = {}
    for name in list_named_actors():
        node, share, _ = name.split("/", 2)
        try:
            found[node, int(share)] = ray.get_actor(name)
        except ValueError:
            continue  # it has just ended
    return found


def describe(ray: Any, node: dict[str, Any], actors: dict[tuple[str, int], Any]) -> dict[str, Any]:
    """Describe a node as JSON."""
    resources = node.get("Resources", {})
    card = next((name.partition(":")[2] for name in resources if name.startswith("accelerator_type:")), "")
    states = []
    for (owner, share), actor in sorted(actors.items(), key=lambda item: item[0]):
        if owner == node["NodeID"]:
            try:
                states.append({"share": share, **ray.get(actor.status.remote(), timeout=10.0)})
            except Exception as error:  # it is starting, or has just died
                states.append({"share": share, "error": described(error).partition("\n")[0]})
    return {
        "name": node.get("NodeManagerHostname", ""),
        "address": node.get("NodeManagerAddress", ""),
        "alive": bool(node.get("Alive")),
        "cpus": int(resources.get("CPU", 0)),
        "gpus": int(resources.get("GPU", 0)),
        "card": card,
        "actors": states,
    }


def trials(
    ray: Any, nodes: list[dict[str, Any]], actors: dict[tuple[str, int], Any], path: Path, precision: str
) -> list[dict[str, Any]]:
    """Have every place compute a chunk, and compare the estimate with this machine's."""
    import time

    import numpy as np

    from tsbs_daw.cluster.lanes import Hooks, Item, Lane, Model, reason_of
    from tsbs_daw.cluster.node import Place, checked, digest, places
    from tsbs_daw.core.files import file_sha256
    from tsbs_daw.network import checkpoint
    from tsbs_daw.separation import Separator
    from tsbs_daw.separation.devices import choose_device

    here = Separator(checkpoint.load(path), choose_device("auto"), model_hash=file_sha256(path), precision=precision)
    model = Model(here.model_hash, str(path), here.precision, here.precision_mark)
    samples = round(TRIAL_S * here.engine.config.sample_rate)
    chunk = np.random.default_rng(1).normal(0, 0.1, (2, samples)).astype(np.float32)
    wanted = here.batcher.submit([chunk])[0].array()

    def trial(place: Place) -> dict[str, Any]:
        running = actors.get((place.node, place.share))
        lane = Lane(ray, place, "doctor", Hooks(lambda *_: None, lambda *_: None))
        try:
            nice = lane.start(running)["nice"]
            item = Item(0, model, "full", 0, chunk, digest(chunk))
            lane.compute([item])  # loads the model
            began = time.monotonic()
            estimate = checked(*lane.compute([item])[0])
            difference = float(np.abs(estimate - wanted).max() / np.abs(wanted).max())
            limit = LARGEST_DIFFERENCE.get(model.mark or "float32", LARGEST_DIFFERENCE["bfloat16"])
            speed = TRIAL_S / (time.monotonic() - began)
            found = {"name": place.text, "ok": difference <= limit, "difference": difference, "speed": speed}
            return {**found, "nice": nice}
        except Exception as error:
            return {"name": place.text, "ok": False, "error": reason_of(error).removeprefix("Refused: ")}
        finally:
            if running is None:
                lane.end()

    with ThreadPoolExecutor(TRIALS_AT_ONCE) as pool:
        return list(pool.map(trial, places(nodes)))


if __name__ == "__main__":
    child.answer(work)
