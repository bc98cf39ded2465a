"""From the `delivery:` section of a preset's YAML to a Delivery, every value checked, every complaint with its place.

delivery:
  format: wav24
  names: "{artist} - {title} [{bpm} BPM {camelot}] {stem}"
  loudness: -14 LUFS
  sessions: [rpp, dawproject]
  analysis: true
  loops: [4, 8]
  stem_mp4: true
  markers: bars
  source: copy
"""

from __future__ import annotations

from collections.abc import Sequence

import yaml

from tsbs_daw.core.documents import Document, is_empty
from tsbs_daw.core.errors import did_you_mean
from tsbs_daw.presets import delivery as rules
from tsbs_daw.presets.delivery import Delivery

KEYS = ("format", "names", "loudness", "sessions", "analysis", "loops", "stem_mp4", "markers", "source")


def read_delivery(document: Document, node: yaml.Node) -> Delivery:
    """Raises: PresetError: with file, line and column"""
    entries = document.mapping(node, "delivery", KEYS)
    found: dict[str, object] = {}
    for name, (_, value) in entries.items():
        if name == "names":
            found["names"] = _template(document, value)
        elif name == "loudness":
            found["loudness_lufs"] = _loudness_lufs(document, value)
        elif name == "sessions":
            found["sessions"] = _sessions(document, value)
        elif name == "loops":
            found["loops"] = _loops(document, value)
        elif name in ("analysis", "stem_mp4"):
            found[name] = _switch(document, value, name)
        else:
            choices = {"format": rules.FORMATS, "markers": rules.MARKERS, "source": rules.SOURCES}[name]
            found[name] = _choice(document, value, name, choices)
    delivery = Delivery(**found)
    if "analysis" in entries and not delivery.analysis and delivery.analyses:
        raise document.fail(entries["analysis"][1], "the loops, or the names, need the analysis; leave `analysis:` out")
    if problem := delivery.problem():
        raise document.fail(entries["format"][1], problem)
    return delivery


def _choice(document: Document, node: yaml.Node, what: str, choices: Sequence[str]) -> str:
    text = document.text(node, what)
    if text not in choices:
        closest = did_you_mean(text, list(choices)) or f"; there are {', '.join(choices)}"
        raise document.fail(node, f"{what} cannot be {text[:40]!r}{closest}")
    return text


def _switch(document: Document, node: yaml.Node, what: str) -> bool:
    text = document.text(node, what).lower()
    if node.style is not None or text not in ("true", "false"):
        raise document.fail(node, f"{what} must be true or false")
    return text == "true"


def _template(document: Document, node: yaml.Node) -> str:
    if isinstance(node, yaml.MappingNode):  # what YAML makes of {artist} without quotes
        raise document.fail(node, 'names must be a text in quotes, like "{title} {stem}"')
    template = " ".join(document.text(node, "names").split())
    if problem := rules.template_problem(template):
        raise document.fail(node, f"the template {template[:80]!r} {problem}")
    return template


def _loudness_lufs(document: Document, node: yaml.Node) -> float:
    value = document.number(node, "loudness", unit="LUFS")
    if not rules.QUIETEST_LUFS <= value <= rules.LOUDEST_LUFS:
        limits = f"from {rules.QUIETEST_LUFS:g} to {rules.LOUDEST_LUFS:g} LUFS"
        raise document.fail(node, f"loudness must be {limits}, not {value:g}")
    return value


def _sessions(document: Document, node: yaml.Node) -> tuple[str, ...]:
    sessions: list[str] = []
    for item in document.items(node, "sessions", len(rules.SESSIONS)):
        session = _choice(document, item, "a session", rules.SESSIONS)
        if session in sessions:
            raise document.fail(item, f"the session {session!r} is named twice; remove one")
        sessions.append(session)
    return tuple(sessions)


def _loops(document: Document, node: yaml.Node) -> tuple[int, ...]:
    one = isinstance(node, yaml.ScalarNode) and not is_empty(node)
    bars: list[int] = []
    for item in [node] if one else document.items(node, "loops", 8):
        count = document.number(item, "a loop's length", unit="bars")
        if count != int(count) or not rules.FEWEST_BARS <= count <= rules.MOST_BARS:
            limits = f"from {rules.FEWEST_BARS} to {rules.MOST_BARS}"
            raise document.fail(item, f"a loop has a whole number of bars {limits}, not {count:g}")
        if int(count) in bars:
            raise document.fail(item, f"loops of {count:g} bars are named twice; remove one")
        bars.append(int(count))
    return tuple(bars)
