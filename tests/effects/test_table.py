"""The table of effects against the pedalboard that is installed."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pedalboard
import pytest
import signals
import soundfile
from timeouts import PATIENCE_S

from tsbs_daw.effects.chain import render
from tsbs_daw.effects.table import CONTAINERS, EFFECTS, Effect, EffectKind, Output, Parameter, did_you_mean

# Classes of pedalboard that are not single effects, or cannot be made.
LEFT_OUT = {
    "AudioUnitPlugin": "macOS only",
    "ExternalPlugin": "abstract",
    "IIRFilter": "abstract",
    "Pedalboard": "a chain is written as a list",
    "Plugin": "abstract",
    "PluginContainer": "abstract",
    "VST3Plugin": "written as VST3",
    "_klass": "a loop variable that pedalboard leaves behind",
}

SAMPLES = 4000


def pedalboard_effects() -> dict[str, type]:
    found = {name: getattr(pedalboard, name) for name in dir(pedalboard)}
    return {name: kind for name, kind in found.items() if inspect.isclass(kind) and issubclass(kind, pedalboard.Plugin)}


def signature(name: str) -> dict[str, str]:
    """Parameter names and defaults of a constructor, as its documentation writes them."""
    line = getattr(pedalboard, name).__init__.__doc__.splitlines()[0]
    found = re.findall(r", (\w+): (?:.*?)(?: = ([^,)]+(?:\.\w+)?|<[^>]+>))?(?=, \w+: |\) ->)", line)
    return {parameter: default.strip() for parameter, default in found}


@pytest.fixture(scope="module")
def response(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An impulse response that passes everything through."""
    path = tmp_path_factory.mktemp("responses") / "through.wav"
    soundfile.write(path, np.eye(1, 64, dtype=np.float32).T, 44100, subtype="FLOAT")
    return path


def needed(kind: EffectKind, response: Path) -> dict:
    return {parameter.name: str(response) for parameter in kind.parameters if parameter.kind == "file"}


def values_to_try(parameter: Parameter) -> list:
    if parameter.kind == "number":
        return [parameter.low, parameter.high]
    if parameter.kind == "switch":
        return [False, True]
    return list(parameter.choices)


def test_every_effect_of_pedalboard_is_in_the_table_or_left_out_for_a_reason():
    assert set(pedalboard_effects()) - set(LEFT_OUT) == set(EFFECTS) | set(CONTAINERS)


@pytest.mark.parametrize("name", EFFECTS)
def test_parameters_and_defaults_are_those_of_pedalboard(name: str):
    ours = {parameter.name: parameter for parameter in EFFECTS[name].parameters}
    theirs = signature(name)
    if name == "Convolution":
        assert theirs.pop("sample_rate") == "None"  # for responses in memory only
    assert list(ours) == list(theirs)
    for parameter, default in theirs.items():
        if ours[parameter].kind == "number":
            assert ours[parameter].default == pytest.approx(float(default))
        elif ours[parameter].kind == "choice":
            assert f".{ours[parameter].default}:" in default
        elif ours[parameter].kind == "switch":
            assert str(ours[parameter].default) == default


def test_choices_are_those_of_pedalboard():
    modes = EFFECTS["LadderFilter"].parameter("mode").choices
    qualities = EFFECTS["Resample"].parameter("quality").choices
    assert set(modes) == set(pedalboard.LadderFilter.Mode.__members__)
    assert set(qualities) == set(pedalboard.Resample.Quality.__members__)


@pytest.mark.parametrize("name", EFFECTS)
def test_every_effect_works_at_both_ends_of_each_range(name: str, response: Path):
    kind = EFFECTS[name]
    rates = (8000, 48_000) if kind.segments or name == "MP3Compressor" else (8000, 44_100, 192_000)
    for sample_rate in rates:
        noise = {"noise": signals.noise(SAMPLES)}
        for parameter in kind.parameters:
            for value in values_to_try(parameter):
                effect = Effect(name, needed(kind, response) | {parameter.name: value})
                done = render(Output("out", ("noise",), (0.0,), (effect,)), noise, sample_rate)
                assert done.shape == (2, SAMPLES)
                # A gain of +36 dB is what was asked for; whatever else rises is not.
                assert np.abs(done).max() < (100 if "gain" in parameter.name or parameter.name == "q" else 8)


@pytest.mark.parametrize("name", EFFECTS)
def test_ends_of_ranges_together_are_still_sound(name: str, response: Path):
    kind = EFFECTS[name]
    numbers = [parameter for parameter in kind.parameters if parameter.kind == "number"]
    for pick in ("low", "high"):
        parameters = {parameter.name: getattr(parameter, pick) for parameter in numbers}
        effect = Effect(name, needed(kind, response) | parameters)
        done = render(Output("out", ("noise",), (0.0,), (effect,)), {"noise": signals.noise(SAMPLES)}, 44100)
        assert np.isfinite(done).all()


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -1.0, "90", True, None])
def test_wrong_values_are_refused_with_a_reason(value):
    assert EFFECTS["HighpassFilter"].parameter("cutoff_frequency_hz").problem(value)


def test_closest_name_is_found_whatever_its_capitals():
    assert did_you_mean("highpass", list(EFFECTS)) == "; did you mean 'HighpassFilter'?"
    assert did_you_mean("zzz", list(EFFECTS)) == ""


def test_reading_a_preset_loads_no_audio_library():
    code = (
        "import sys\n"
        "from tsbs_daw.presets.preset import list_presets\n"
        "assert len(list_presets()) >= 10\n"
        "heavy = {'pedalboard', 'numpy', 'torch', 'soundfile'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=PATIENCE_S)
