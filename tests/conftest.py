"""What holds for all tests.

The long form of a fault case runs only where it is asked for, with `-m long`. Programs that the tests start heed
Ctrl-C, also where the tests themselves were started in the background by a shell, which makes them deaf to it.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings
from hypothesis.database import DirectoryBasedExampleDatabase

if TYPE_CHECKING:
    from harness.tally import Tally

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# What failed once is tried again in the next run; in CI every run has the same examples. Nothing is timed.
_FUZZING = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow, HealthCheck.function_scoped_fixture]}
_KEPT = DirectoryBasedExampleDatabase(Path(__file__).parents[1] / ".hypothesis" / "examples")
settings.register_profile("kept", database=_KEPT, **_FUZZING)
settings.register_profile("ci", derandomize=True, database=None, **_FUZZING)
settings.load_profile("ci" if os.environ.get("CI") else "kept")


@pytest.fixture(scope="session", autouse=True)
def _state_of_their_own(tmp_path_factory: pytest.TempPathFactory) -> None:
    """The list of watched folders that daemons of one user share: these tests have one of their own."""
    os.environ["XDG_STATE_HOME"] = str(tmp_path_factory.mktemp("state"))


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if "long" in config.option.markexpr:
        return
    long = [item for item in items if item.get_closest_marker("long")]
    if long:
        config.hook.pytest_deselected(items=long)
        items[:] = [item for item in items if not item.get_closest_marker("long")]


@pytest.fixture
def tally(record_property: Callable[[str, object], None]) -> Iterator[Tally]:
    """Counts what faults did. The counts go into the report; the test fails where anything was lost, twice or left."""
    from harness.tally import Tally  # most tests need nothing of the daemon

    counted = Tally()
    yield counted
    for name, count in asdict(counted).items():
        record_property(name, count)
    assert not counted.found, f"after {counted.faults} faults: {counted.found}"
