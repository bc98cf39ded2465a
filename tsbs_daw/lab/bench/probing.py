"""Each measurement in a process of its own: what one leaves behind does not burden the next."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from tsbs_daw.core import errors
from tsbs_daw.core.errors import TsbsDawError
from tsbs_daw.lab.bench.row import Options

PROBE_LIMIT_S = 3600.0


def work_folder() -> tempfile.TemporaryDirectory[str]:
    """Where probes leave their answers; gone after the `with`."""
    return tempfile.TemporaryDirectory(prefix="tsbs-daw-bench-", ignore_cleanup_errors=True)


def probe(name: str, folder: str, options: Options, **values: Any) -> dict[str, Any]:
    """Run one of `probe`'s measurements in a process of its own. Raises: what it raised; TsbsDawError: it died"""
    request = {"probe": name, "folder": folder, "model": options.model, "preset": options.preset}
    request |= {"device": options.device, "quick": options.quick, **values}
    ended = subprocess.run(
        [sys.executable, "-m", "tsbs_daw.lab.bench.probe", json.dumps(request)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        timeout=PROBE_LIMIT_S,
    )
    answer = Path(folder) / "answer.json"
    found = json.loads(answer.read_text(encoding="utf-8")) if answer.is_file() else {}
    if "error" in found:
        raise getattr(errors, found["kind"])(found["error"])
    if not found:
        last = ended.stderr.decode("utf-8", errors="replace").strip().splitlines()[-1:]
        raise TsbsDawError(
            f"Measuring {name} ended early (exit code {ended.returncode}: {' '.join(last)}); run `tsbs-daw doctor`."
        )
    answer.unlink()
    return found
