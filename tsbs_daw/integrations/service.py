"""Runs the daemon as a service of the user's account, on three systems.

    Linux    systemd user unit            checked with `systemd-analyze verify`
    macOS    launchd agent                never run
    Windows  task of Task Scheduler       never run

Each starts at login and restarts after a failure. Where the system distinguishes exit codes, it does not restart after
invalid arguments (exit code 2).
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
_NO_PROGRAM = "\"'\\$"  # characters that systemd refuses or replaces in the path of a program, even if quoted
_SPECIAL = {"\\": "\\\\", '"': '\\"', "\n": "\\n", "\t": "\\t", "\r": "\\r"}


@dataclass(frozen=True)
class Service:
    """The service to install.

    Attributes:
        command: Program and arguments, with absolute paths.
        environment: Environment variables in addition to those of the login.
        log: File for the program's output under launchd. systemd has its journal, and the program writes its own log.
    """

    command: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict)
    log: Path = Path("service.log")


@dataclass(frozen=True)
class Plan:
    """How to install a service on one system.

    Attributes:
        path: File that describes the service.
        content: Content of that file.
        start: Commands that register and start the service.
        stop: Commands that stop and unregister it.
        query: Command that reports its state.
        logs: Where the user finds further logs.
    """

    path: Path
    content: bytes
    start: tuple[tuple[str, ...], ...]
    stop: tuple[tuple[str, ...], ...]
    query: tuple[str, ...]
    logs: str


def plan(service: Service, platform: str = sys.platform) -> Plan | None:
    """Return how to install a service on a platform; None if the platform is not supported."""
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
    """Return the text of the unit. `man systemd.service` and `man systemd.syntax` describe the quoting."""
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
    """Quote any text as one word. A % is doubled, because systemd would expand it."""
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
    """Return the property list of the agent. `man launchd.plist` describes the keys."""
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
    """Return the XML of the task: schema version 1.2, in UTF-16, which `schtasks` requires.

    A task cannot set environment variables; it gets those of the account.
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
        "ExecutionTimeLimit": "PT0S",  # no limit
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
