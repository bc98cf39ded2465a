"""The process that analyses one song: `python -m tsbs_daw.pipeline.analysis_child`, started by `analysing`.

The plan comes as JSON on stdin, {"mixture": path, "stems": {name: path}, "answer": path}. The answer is a file:
{"analysis": {...}} or {"error": sentence}. When stdin ends, the parent is gone, and so is this process.
"""

from __future__ import annotations

import faulthandler
import json
import os
import sys
import threading
import traceback
from pathlib import Path

from tsbs_daw.core.errors import TsbsDawError


def main() -> int:
    plan = json.loads(sys.stdin.buffer.readline())
    threading.Thread(target=_end_with_parent, daemon=True).start()
    from tsbs_daw.analysis.analyse import analyse  # slow: the libraries that listen

    try:
        found = analyse(Path(plan["mixture"]), {name: Path(path) for name, path in plan["stems"].items()})
        answer = {"analysis": json.loads(found.model_dump_json(by_alias=True))}
    except TsbsDawError as error:
        answer = {"error": str(error)}
    Path(plan["answer"]).write_text(json.dumps(answer), encoding="utf-8")
    return 0


def _end_with_parent() -> None:
    while os.read(0, 4096):
        pass
    os._exit(0)


if __name__ == "__main__":
    faulthandler.enable()
    code = 1
    try:
        code = main()
    except Exception:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)  # everything is said, and native libraries may crash while they are unloaded
