"""`tsbs-daw presets`: list, show and check effect presets."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tsbs_daw.cli.console import AsJson, counted, decibels, print_json, table
from tsbs_daw.core.errors import shown

if TYPE_CHECKING:
    from tsbs_daw.effects.table import Effect, Output
    from tsbs_daw.presets.preset import Pass, Preset

app = typer.Typer(no_args_is_help=True, help="List, show and check effect presets.")


@app.command("list")
def list_(as_json: AsJson = False) -> None:
    """List all presets, your own and the shipped ones.

    Example: tsbs-daw presets list
    """
    from tsbs_daw.core.config import Settings
    from tsbs_daw.core.errors import PresetError
    from tsbs_daw.presets.preset import preset_files, read_preset

    own = Settings.from_environment().presets
    rows, facts = [], []
    for name, path in preset_files(own).items():
        origin = "yours" if path.parent == own else "shipped"
        try:
            preset = read_preset(path)
        except PresetError as error:
            # One broken preset must not hide the others.
            rows.append((name, origin, f"BROKEN: {error}"))
            facts.append({"name": name, "path": str(path), "origin": origin, "error": str(error)})
            continue
        rows.append((name, origin, preset.description))
        facts.append(_facts(preset) | {"origin": origin})
    if as_json:
        print_json(facts)
    else:
        typer.echo(table(("NAME", "FROM", "WHAT IT IS FOR"), rows))


@app.command()
def show(
    preset: Annotated[str, typer.Argument(help="Preset: a name or a YAML file.")], as_json: AsJson = False
) -> None:
    """Show a preset's outputs, and the effect chain of each.

    Example: tsbs-daw presets show vocal-cleanup
    """
    from tsbs_daw.core.config import Settings
    from tsbs_daw.presets.preset import load_preset

    found = load_preset(preset, Settings.from_environment().presets)
    if as_json:
        print_json(_facts(found))
        return
    typer.echo(f"{found.name}: {found.description}\n{found.path}")
    for output in found.outputs:
        typer.echo(f"\n{output.name}  ({_sources(output)})")
        for effect in output.chain:
            typer.echo("\n".join(_lines(effect, "  ")))
    if not found.outputs:
        typer.echo("\nstems only, no outputs")
    if found.passes:
        typer.echo("\npasses")
        for step in found.passes:
            typer.echo(f"  {_pass(step)}")
    if not found.delivery.plain:
        typer.echo("\ndelivery")
        for name, value in found.delivery.settled.items():
            typer.echo(f"  {name}: {_delivered(value)}")


@app.command()
def effects(
    name: Annotated[str | None, typer.Argument(help="Effect to show. Default: all of them.")] = None,
    as_json: AsJson = False,
) -> None:
    """Show the available effects, and the range and default of each parameter.

    Example: tsbs-daw presets effects Compressor
    """
    from tsbs_daw.core.errors import UsageError, did_you_mean
    from tsbs_daw.effects.table import EFFECTS

    if name is not None and name not in EFFECTS:
        raise UsageError(f"There is no effect {name!r}{did_you_mean(name, list(EFFECTS)) or '.'}")
    kinds = [EFFECTS[name]] if name else list(EFFECTS.values())
    if as_json:
        facts = {kind.name: {parameter.name: parameter.facts() for parameter in kind.parameters} for kind in kinds}
        print_json(facts)
        return
    for kind in kinds:
        typer.echo(kind.name)
        for parameter in kind.parameters:
            default = "required" if parameter.default is None else f"default {_plain(parameter.default)}"
            typer.echo(f"  {parameter.name}: {parameter.allowed()}; {default}")


@app.command()
def check(
    files: Annotated[list[str], typer.Argument(help="Presets: names or YAML files.")],
    run: Annotated[
        bool,
        typer.Option("--run", help="Also run each chain on noise, and show how much it changes the level."),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Check presets for mistakes.

    The exit code is 2 if a preset is invalid. With --run, a plug-in that was disabled after a crash is tried again.

    Example: tsbs-daw presets check my-chain.yaml --run
    """
    from tsbs_daw.core.errors import EffectError, PresetError

    answers: list[dict[str, Any]] = []
    for file in files:
        try:
            known = {"plugins": _plugins(file), "passes": _passes(file), "outputs": _checked(file, run)}
            answers.append({"preset": file, "error": None, **known})
        except (PresetError, EffectError) as error:
            answers.append({"preset": file, "error": str(error), "plugins": [], "passes": [], "outputs": []})
    if as_json:
        print_json(answers)
    for answer in () if as_json else answers:
        if answer["error"]:
            typer.echo(answer["error"], err=True)
            continue
        typer.echo(f"{answer['preset']}: valid, {counted(len(answer['outputs']), 'output')}")
        for plugin in answer["plugins"]:
            typer.echo(f"  runs the plug-in {plugin['path']}: {plugin['status']}")
        for step in answer["passes"]:
            typer.echo(f"  sends {step['stem']} through {shown(step['model'])}: {step['status']}")
        for output in answer["outputs"] if run else ():
            typer.echo(f"  {output['name']}: {_heard(output)}")
    if any(answer["error"] for answer in answers):
        raise typer.Exit(2)


@app.command()
def trust(preset: Annotated[str, typer.Argument(help="Preset: a name or a YAML file.")]) -> None:
    """Allow the plug-ins that a preset names by path.

    A VST3 plug-in is a program that runs with your permissions. Plug-ins in the system's plug-in folders may always
    run; any other runs only after this command, and only as long as its file does not change.

    Example: tsbs-daw presets trust my-chain.yaml
    """
    from tsbs_daw.core.config import Settings
    from tsbs_daw.effects.vst3 import PluginHost, is_installed, plugins_of
    from tsbs_daw.presets.preset import load_preset

    host = PluginHost()
    assert host.trusted is not None, "by default, a host trusts only what is recorded"
    outputs = load_preset(preset, Settings.from_environment().presets).outputs
    others = [plugin for plugin in plugins_of(outputs, host) if not is_installed(plugin)]
    for plugin in others:
        host.trusted.add(plugin)
        typer.echo(f"Allowed {shown(plugin)}.")
    if not others:
        typer.echo("The preset names no plug-in outside the system's plug-in folders.")


def _plugins(file: str) -> list[dict[str, str]]:
    """List the plug-ins of a preset, and whether each may run. Raises `PresetError` or `EffectError`."""
    from tsbs_daw.core.config import Settings
    from tsbs_daw.core.errors import EffectError
    from tsbs_daw.effects.table import PLUGIN
    from tsbs_daw.effects.vst3 import PluginHost
    from tsbs_daw.presets.preset import load_preset

    host, found = PluginHost(), {}
    for output in load_preset(file, Settings.from_environment().presets).outputs:
        for effect in output.effects():
            if effect.name != PLUGIN:
                continue
            path, status = shown(effect.path), "may run"
            try:
                located = host.locate(effect)
                path = shown(located)
                if host.trusted:
                    host.trusted.check(located)
            except EffectError as error:
                status = str(error)
            found[path] = status
    return [{"path": path, "status": status} for path, status in found.items()]


def _passes(file: str) -> list[dict[str, str]]:
    """List the passes of a preset, with the stems of each or why it cannot run here. Raises `PresetError`."""
    from tsbs_daw.core.config import Settings
    from tsbs_daw.core.errors import TsbsDawError
    from tsbs_daw.models.kinds import read_config
    from tsbs_daw.models.registry import members, resolve
    from tsbs_daw.presets.preset import load_preset

    settings, found = Settings.from_environment(), []
    for step in load_preset(file, settings.presets).passes:
        try:
            paths = [resolve(name, settings) for name in members(step.model)]
            status = f"gives {', '.join(read_config(paths[0]).stems)}"
        except TsbsDawError as error:
            status = str(error)
        found.append({"stem": step.stem, "model": step.model, "status": status})
    return found


def _checked(file: str, run: bool) -> list[dict[str, Any]]:
    """List the outputs of a preset; with `run`, measure each. Raises `PresetError` or `EffectError`."""
    from tsbs_daw.core.config import Settings
    from tsbs_daw.presets.preset import load_preset

    preset = load_preset(file, Settings.from_environment().presets)
    if not run:
        return [{"name": output.name} for output in preset.outputs]
    from tsbs_daw.effects.chain import dry_run
    from tsbs_daw.effects.vst3 import clear_plugins

    answers = []
    for output in preset.outputs:
        clear_plugins(output)
        heard = dry_run(output)
        answers.append({"name": output.name, "change_lu": heard.change_db, "true_peak_db": heard.after.true_peak_db})
    return answers


def _heard(output: dict[str, Any]) -> str:
    if output["change_lu"] is None:
        return "silent on noise"
    return f"{output['change_lu']:+.1f} LU on noise, true peak {decibels(output['true_peak_db'], 'dBFS')}"


def _facts(preset: Preset) -> dict[str, Any]:
    return {
        "name": preset.name,
        "description": preset.description,
        "path": str(Path(preset.path)),
        "sha256": preset.sha256,
        "delivery": preset.delivery.settled,
        "passes": [{"stem": step.stem, "model": step.model, "keep": dict(step.keep)} for step in preset.passes],
        "outputs": [
            {
                "name": output.name,
                "from": dict(zip(output.sources, output.gain_db, strict=True)),
                "color": output.color,
                "chain": [_effect_facts(effect) for effect in output.chain],
            }
            for output in preset.outputs
        ],
    }


def _effect_facts(effect: Effect) -> dict[str, Any]:
    inside = {"children": [_effect_facts(child) for child in effect.children]} if effect.children else {}
    plugin = {"path": effect.path, "plugin": effect.plugin} if effect.path else {}
    return {"effect": effect.name, "parameters": dict(effect.parameters), **inside, **plugin}


def _pass(step: Pass) -> str:
    kept = ", ".join(stem if stem == name else f"{stem} as {name}" for stem, name in step.keep)
    return f"{step.stem} through {shown(step.model)}" + (f", keeps {kept}" if kept else "")


def _sources(output: Output) -> str:
    pairs = zip(output.sources, output.gain_db, strict=True)
    return " + ".join(f"{name} {gain:+g} dB" if gain else name for name, gain in pairs)


def _lines(effect: Effect, indent: str) -> list[str]:
    parameters = ", ".join(f"{name} {_plain(value)}" for name, value in effect.parameters.items())
    lines = [f"{indent}{effect}" + (f": {parameters}" if parameters else "")]
    for child in effect.children:
        lines += _lines(child, indent + "  ")
    return lines


def _delivered(value: Any) -> str:
    if isinstance(value, tuple):
        return ", ".join(str(one) for one in value) or "none"
    return "unchanged" if value is None else _plain(value)


def _plain(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value)
