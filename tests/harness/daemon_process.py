"""Runs a daemon, as `stage.DaemonProcess` orders it: python daemon_process.py JSON"""

from __future__ import annotations

import importlib
import json
import logging
import os
import sys
from pathlib import Path

from tsbs_daw.contracts.job import Treatment
from tsbs_daw.core.config import DaemonOptions, Settings, WatchTimings
from tsbs_daw.core.errors import TsbsDawError
from tsbs_daw.daemon.daemon import Daemon
from tsbs_daw.watch.folders import WatchFolder, load_folders


def die_at(step: str) -> None:
    """`module:Class.method:before` or `:after`: end this process there, the first time, as `kill -9` would."""
    module, name, when = step.split(":")
    owner_name, method_name = name.split(".")
    owner = getattr(importlib.import_module(module if "." in module else f"tsbs_daw.queue.{module}"), owner_name)
    real = getattr(owner, method_name)

    def deadly(*positional: object, **named: object) -> object:
        if when == "after":
            real(*positional, **named)
        os._exit(137)

    setattr(owner, method_name, deadly)


def main() -> int:
    order = json.loads(sys.argv[1])
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    settings = Settings.from_texts(order["settings"])
    folders = [
        WatchFolder(Path(f.pop("path")), Path(f.pop("output")), Treatment(**f.pop("treatment")), **f)
        for f in order["folders"]
    ]
    folders += load_folders(Path(order["config"])) if order["config"] else []
    timings = {name: WatchTimings(**order["options"].pop(name)) for name in ("local", "share")}
    options = DaemonOptions(**order["options"], **timings)
    if order["die_at"]:
        die_at(order["die_at"])
    try:
        with Daemon(settings, folders, options=options, once=order["once"]) as daemon:
            daemon.run()
    except TsbsDawError as error:
        print(f"{type(error).__name__}: {error}", flush=True)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
