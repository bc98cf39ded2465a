"""Runs a daemon, as `stage.DaemonProcess` orders it: python daemon_process.py JSON"""

from __future__ import annotations

import json
import logging
import sys
from pathlib import Path

from tsbs_daw.config import Settings
from tsbs_daw.errors import TsbsDawError
from tsbs_daw.jobs.daemon import Daemon
from tsbs_daw.jobs.folders import WatchFolder
from tsbs_daw.jobs.options import DaemonOptions, WatchTimings


def main() -> int:
    order = json.loads(sys.argv[1])
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    settings = Settings.from_texts(order["settings"])
    folders = [WatchFolder(**{**f, "path": Path(f["path"]), "output": Path(f["output"])}) for f in order["folders"]]
    timings = {name: WatchTimings(**order["options"].pop(name)) for name in ("local", "share")}
    options = DaemonOptions(**order["options"], **timings)
    try:
        with Daemon(settings, folders, options=options, once=order["once"]) as daemon:
            daemon.run()
    except TsbsDawError as error:
        print(f"{type(error).__name__}: {error}", flush=True)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
