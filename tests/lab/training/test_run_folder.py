from __future__ import annotations

from tsbs_daw.lab.training.run_folder import Curve, read_curve


def test_a_resume_drops_the_rows_that_are_trained_again(tmp_path):
    path = tmp_path / "curve.jsonl"
    curve = Curve(path)
    for step in range(1, 6):
        curve.add("step", step, loss=1 / step)
    Curve(path, resume_step=3).add("step", 4, loss=0.0)
    assert [row["step"] for row in read_curve(path)] == [1, 2, 3, 4]
    assert read_curve(path)[-1]["loss"] == 0.0


def test_a_line_that_a_crash_cut_is_dropped(tmp_path):
    path = tmp_path / "curve.jsonl"
    Curve(path).add("step", 1, loss=1.0)
    with path.open("a") as file:
        file.write('{"kind": "step", "st')
    assert [row["step"] for row in read_curve(path)] == [1]
    Curve(path, resume_step=1).add("step", 2, loss=1.0)
    assert [row["step"] for row in read_curve(path)] == [1, 2]


def test_a_new_run_begins_a_new_curve(tmp_path):
    path = tmp_path / "curve.jsonl"
    Curve(path).add("step", 1)
    Curve(path)
    assert read_curve(path) == []
    assert read_curve(tmp_path / "none.jsonl") == []
