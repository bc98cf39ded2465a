"""The stopwatch for a user's wait can be read. How good the figures are is for `make bench-reaper` to say."""

from __future__ import annotations

from reaper import bench


def test_every_moment_of_a_wait_is_measured_in_its_order():
    found = bench.report(seconds=0.5, runs=1, items=2)
    assert [row["name"] for row in found["rows"]] == list(bench.ROWS)
    for row in found["rows"]:
        moments = row["median_s"]
        assert 0 <= moments["action"] <= moments["asked"] <= moments["result"] <= moments["tracks"]
        assert row["tracks_s"] == [round(moments["tracks"], 3)]
    assert [row["name"] for row in found["ticks"]] == [f"ticks.{name}" for name in bench.TICK_ROWS]
    for row in found["ticks"]:
        assert row["ticks"] > 0 and all(
            0 < row[f"{kind}_ms"]["median"] <= row[f"{kind}_ms"]["p99"] <= row[f"{kind}_ms"]["longest"]
            for kind in bench.TICK_KINDS
        )
