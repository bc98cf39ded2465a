"""The daemon as a service of the user's account: one description, written for three systems.

    Linux    a systemd user unit          checked with `systemd-analyze verify`
    macOS    a launchd agent              written for, and never run
    Windows  a task of Task Scheduler     written for, and never run

Each starts at login, and starts again after a failure, but not after a mistake in its arguments (exit code 2), where
the system can tell the two apart.
"""

from __future__ import annotations

import getpass
import os
import plistlib
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from xml.etree import ElementTree

NAME = "tsbs-daw"
LABEL = "tsbs-daw.watch"
DESCRIPTION = "tsbs-daw: separates songs of watch folders, and what a DAW sends"

_TASK_SCHEMA = "http://schemas.microsoft.com/windows/2004/02/mit/task"
_NO_PROGRAM = "\"'\\$"  # what systemd refuses or replaces in the path of a program, however it is quoted
_SPECIAL = {"\\": "\\\\", '"': '\\"', "\n": "\\n", "\t": "\\t", "\r": "\\r"}


@dataclass(frozen=True)
class Service:
    """What runs.

    Attributes:
        command: Program and arguments, paths from the root on.
        environment: Variables beside those of the login.
        log: Where launchd puts what the program prints; systemd has its journal, and the program writes its own log.
    """

    command: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict)
    log: Path = Path("service.log")


@dataclass(frozen=True)
class Plan:
    """What installing comes to on one system.

    Attributes:
        path: The file that describes the service there.
        content: What it holds.
        start, stop, query: Commands that make the system use it, forget it, and tell about it.
        logs: Where else to look, for people.
    """

    path: Path
    content: bytes
    start: tuple[tuple[str, ...], ...]
    stop: tuple[tuple[str, ...], ...]
    query: tuple[str, ...]
    logs: str


def plan(service: Service, platform: str = sys.platform) -> Plan | None:
    """What there is to do on this system; None for one that this program does not know."""
    if platform.startswith("linux"):
        return _systemd(service)
    if platform == "darwin":
        return _launchd(service)
    if platform == "win32":
        return _task(service)
    return None


# ---- systemd ---------------------------------------------------------------------------------------------------------


def _systemd(service: Service) -> Plan:
    config = os.environ.get("XDG_CONFIG_HOME", "")
    base = Path(config) if config.startswith("/") else Path.home() / ".config"
    unit, control = f"{NAME}.service", ("systemctl", "--user")
    return Plan(
        path=base / "systemd" / "user" / unit,
        content=systemd_unit(service).encode(),
        start=((*control, "daemon-reload"), (*control, "enable", unit), (*control, "restart", unit)),
        stop=((*control, "disable", "--now", unit), (*control, "daemon-reload")),
        query=(*control, "is-active", unit),
        logs=f"journalctl --user -u {NAME}",
    )


def systemd_unit(service: Service) -> str:
    """The unit's text; `man systemd.service` and `man systemd.syntax` say how it is quoted."""
    program, *arguments = service.command
    if any(char in _NO_PROGRAM or not char.isprintable() for char in program):
        program, arguments = "/bin/sh", ["-c", 'exec "$@"', "sh", *service.command]
    command = " ".join([_quoted(program), *(_quoted(part).replace("$", "$$") for part in arguments)])
    variables = [f"Environment={_quoted(f'{name}={value}')}" for name, value in service.environment.items()]
    lines = ["[Unit]", f"Description={DESCRIPTION}", "StartLimitIntervalSec=300", "StartLimitBurst=10", ""]
    lines += ["[Service]", "Type=exec", f"ExecStart={command}", *variables]
    lines += [
        "Restart=on-failure",
        "RestartSec=10",
        "RestartPreventExitStatus=2",
        "KillMode=mixed",
        "TimeoutStopSec=20",
    ]
    lines += ["", "[Install]", "WantedBy=default.target", ""]
    return "\n".join(lines)


def _quoted(text: str) -> str:
    """One word, whatever is in it; % would stand for something else."""
    inside = "".join(_SPECIAL.get(char) or (char if char.isprintable() else _escaped(char)) for char in text)
    return f'"{inside}"'.replace("%", "%%")


def _escaped(char: str) -> str:
    return "".join(f"\\x{byte:02x}" for byte in os.fsencode(char))


# ---- launchd ---------------------------------------------------------------------------------------------------------


def _launchd(service: Service) -> Plan:
    path = Path.home() / "Library" / "LaunchAgents" / f"{LABEL}.plist"
    domain = f"gui/{os.getuid()}" if hasattr(os, "getuid") else "gui/501"
    remove = ("launchctl", "bootout", f"{domain}/{LABEL}")
    return Plan(
        path=path,
        content=launchd_agent(service),
        start=(("launchctl", "bootstrap", domain, str(path)),),
        stop=(remove,),
        query=("launchctl", "print", f"{domain}/{LABEL}"),
        logs=str(service.log),
    )


def launchd_agent(service: Service) -> bytes:
    """The agent's property list; `man launchd.plist` says what the keys mean."""
    agent = {
        "Label": LABEL,
        "ProgramArguments": list(service.command),
        "EnvironmentVariables": dict(service.environment),
        "RunAtLoad": True,
        "KeepAlive": {"SuccessfulExit": False},
        "ThrottleInterval": 10,
        "ExitTimeOut": 20,
        "StandardOutPath": os.devnull,
        "StandardErrorPath": str(service.log),
    }
    return plistlib.dumps(agent, sort_keys=False)


# ---- Task Scheduler --------------------------------------------------------------------------------------------------


def _task(service: Service) -> Plan:
    path = Path(os.environ.get("APPDATA") or Path.home()) / NAME / f"{NAME}-task.xml"
    return Plan(
        path=path,
        content=task_definition(service, _windows_user()),
        start=(
            ("schtasks", "/Create", "/TN", NAME, "/XML", str(path), "/F"),
            ("schtasks", "/Run", "/TN", NAME),
        ),
        stop=(("schtasks", "/End", "/TN", NAME), ("schtasks", "/Delete", "/TN", NAME, "/F")),
        query=("schtasks", "/Query", "/TN", NAME),
        logs="the history of the task in Task Scheduler",
    )


def _windows_user() -> str:
    domain = os.environ.get("USERDOMAIN", "")
    return f"{domain}\\{getpass.getuser()}" if domain else getpass.getuser()


def task_definition(service: Service, user: str) -> bytes:
    """The task's XML, of schema version 1.2, in UTF-16 as `schtasks` wants it.

    A task has no environment of its own: variables count if they are set for the account.
    """
    program, *arguments = service.command
    task = ElementTree.Element("Task", version="1.2", xmlns=_TASK_SCHEMA)
    _add(task, {"RegistrationInfo": {"Description": DESCRIPTION}})
    _add(task, {"Triggers": {"LogonTrigger": {"Enabled": "true", "UserId": user}}})
    principals = ElementTree.SubElement(task, "Principals")
    principal = ElementTree.SubElement(principals, "Principal", id="Author")
    _add(principal, {"UserId": user, "LogonType": "InteractiveToken", "RunLevel": "LeastPrivilege"})
    settings = {
        "MultipleInstancesPolicy": "IgnoreNew",
        "DisallowStartIfOnBatteries": "false",
        "StopIfGoingOnBatteries": "false",
        "StartWhenAvailable": "true",
        "Enabled": "true",
        "ExecutionTimeLimit": "PT0S",  # without limit
        "RestartOnFailure": {"Interval": "PT1M", "Count": "10"},
    }
    _add(task, {"Settings": settings})
    actions = ElementTree.SubElement(task, "Actions", Context="Author")
    _add(actions, {"Exec": {"Command": f'"{program}"', "Arguments": subprocess.list2cmdline(arguments)}})
    return ElementTree.tostring(task, encoding="utf-16", xml_declaration=True)


def _add(parent: ElementTree.Element, children: Mapping[str, object]) -> None:
    for name, value in children.items():
        child = ElementTree.SubElement(parent, name)
        if isinstance(value, Mapping):
            _add(child, value)
        else:
            child.text = str(value)
