"""Chains in a process of their own. What crashes and hangs here is a real process; what works is a real plug-in, if
there is one (Debian: zam-plugins)."""

from __future__ import annotations

import os
import platform
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import signals
from timeouts import PATIENCE_S

from tsbs_daw.core.conversation import Conversation
from tsbs_daw.core.errors import EffectError
from tsbs_daw.effects.chain import OutputRenderer, render
from tsbs_daw.effects.table import Effect, Output
from tsbs_daw.effects.vst3 import PluginHost, Quarantine, clear_plugins, find_plugin

RATE = signals.RATE
POSIX = os.name == "posix"


@pytest.fixture
def host(tmp_path: Path) -> PluginHost:
    return PluginHost(
        start_s=PATIENCE_S, block_s=PATIENCE_S, quarantine=Quarantine(tmp_path / "plugins.json"), trusted=None
    )


def plugin(path: str | Path, **parameters) -> Effect:
    return Effect("VST3", parameters, path=str(path))


def one(*chain: Effect) -> Output:
    return Output("out", ("sound",), (0.0,), chain)


def real(name: str) -> Effect:
    """A plug-in that is installed, or the test is skipped."""
    try:
        return plugin(find_plugin(name))
    except EffectError:
        pytest.skip(f"{name} is not installed (Debian: apt-get install zam-plugins)")


def made(tmp_path: Path, code: str, name: str = "Bad") -> Path:
    """A plug-in that runs `code` when it is loaded."""
    compiler = shutil.which("cc")
    if not compiler or platform.system() != "Linux":
        pytest.skip("needs Linux and a C compiler")
    library = tmp_path / f"{name}.vst3" / "Contents" / f"{platform.machine()}-linux" / f"{name}.so"
    library.parent.mkdir(parents=True)
    source = tmp_path / f"{name}.c"
    source.write_text(
        "#include <stdlib.h>\n#include <unistd.h>\n#include <stdio.h>\n"
        f"__attribute__((constructor)) static void start(void) {{ {code} }}\n"
    )
    subprocess.run([compiler, "-shared", "-fPIC", "-o", library, source], check=True)
    return tmp_path / f"{name}.vst3"


def gone(pid: int) -> bool:
    """Whether a process has ended, be it that nobody has asked for its exit code yet."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:  # there is no /proc, or it has gone meanwhile
        return Path("/proc").is_dir()
    except ProcessLookupError:
        return True


# ---- the process itself, with effects of pedalboard in it


def test_a_chain_gives_the_same_in_a_process_of_its_own(host: PluginHost):
    chain = (
        Effect("BrickwallLimiter", {"lookahead_ms": 20.0}),
        Effect("Mix", children=(Effect("Reverb"), Effect("Gain"))),
    )
    sound = signals.mixture(signals.song(1.0))
    process = host.open(one(*chain), RATE, 2)
    parts = [
        process.process(sound[:, :10_000]),
        process.process(sound[:, 10_000:]),
        process.process(sound[:, :0], True),
    ]
    process.close()
    assert np.array_equal(np.concatenate(parts, axis=1), render(one(*chain), {"sound": sound}, RATE))


def test_an_error_of_an_effect_keeps_its_sentence(host: PluginHost):
    with pytest.raises(EffectError, match=r"^Gain|^The effect Gain is invalid: gain_db must be from"):
        host.open(one(Effect("Gain", {"gain_db": 1000.0})), RATE, 2)


@pytest.mark.skipif(not POSIX, reason="signals")
def test_a_killed_process_is_an_error_and_leaves_nothing_behind(host: PluginHost):
    process = host.open(one(Effect("Reverb")), RATE, 2)
    process.process(signals.noise(20_000))
    os.kill(process.pid, signal.SIGKILL)
    with pytest.raises(EffectError, match=r"The effects of the output 'out' crashed \(SIGKILL\) while it worked"):
        for _ in range(50):
            process.process(signals.noise(20_000))
    assert gone(process.pid)
    process.close()


@pytest.mark.skipif(not POSIX, reason="signals")
def test_a_process_that_stops_answering_is_killed(tmp_path: Path):
    host = PluginHost(start_s=PATIENCE_S, block_s=2, quarantine=Quarantine(tmp_path / "plugins.json"), trusted=None)
    process = host.open(one(Effect("Reverb")), RATE, 2)
    os.kill(process.pid, signal.SIGSTOP)
    with pytest.raises(EffectError, match=r"hung \(no answer in 2 s\) while it worked"):
        process.process(signals.noise(2_000_000))  # more than a pipe holds: writing blocks, too
    assert gone(process.pid)


@pytest.mark.skipif(not POSIX, reason="signals")
def test_a_process_ends_with_its_parent(tmp_path: Path):
    code = (
        "import sys, time\nfrom tsbs_daw.effects.vst3 import PluginHost\n"
        "from tsbs_daw.effects.table import Effect, Output\n"
        "process = PluginHost().open(Output('out', ('a',), (0.0,), (Effect('Gain'),)), 44100, 2)\n"
        "print(process.pid, flush=True)\ntime.sleep(600)\n"
    )
    environment = os.environ | {"TSBS_DAW_HOME": str(tmp_path)}
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, env=environment) as parent:
        child = int(parent.stdout.readline())
        assert not gone(child)
        parent.kill()
    deadline = time.monotonic() + PATIENCE_S
    while not gone(child) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert gone(child)


# ---- plug-ins that fail


def test_a_missing_plugin_is_named_with_the_folders(host: PluginHost, tmp_path: Path):
    with pytest.raises(EffectError, match=r"The plug-in '.*Gone\.vst3' is missing"):
        render(one(plugin(tmp_path / "Gone.vst3")), {"sound": signals.noise(100)}, RATE, host)
    elsewhere = PluginHost(quarantine=host.quarantine, folders=(tmp_path,), trusted=None)
    with pytest.raises(EffectError, match=f"The plug-in 'Gone.vst3' is in none of '{tmp_path}'"):
        render(one(plugin("Gone.vst3")), {"sound": signals.noise(100)}, RATE, elsewhere)


def test_a_bare_name_is_found_in_the_folders_and_one_below(tmp_path: Path):
    (tmp_path / "maker").mkdir()
    (tmp_path / "maker" / "Thing.vst3").mkdir()
    assert find_plugin("Thing.vst3", [tmp_path / "none", tmp_path]) == tmp_path / "maker" / "Thing.vst3"


def test_a_file_that_is_no_plugin_is_an_error_and_no_crash(host: PluginHost, tmp_path: Path):
    (tmp_path / "Fake.vst3").write_text("no plug-in")
    with pytest.raises(EffectError, match=r"The effect VST3 .*Fake\.vst3\) failed: "):
        render(one(plugin(tmp_path / "Fake.vst3")), {"sound": signals.noise(100)}, RATE, host)
    assert not host.quarantine.file.exists()


def test_a_plugin_that_crashes_twice_is_not_used_again(host: PluginHost, tmp_path: Path):
    path = made(tmp_path, "abort();")
    sound = {"sound": signals.noise(100)}
    output = one(Effect("Gain"), Effect("Mix", children=(Effect("Gain"), plugin(path))))
    with pytest.raises(
        EffectError, match=r"Bad\.vst3' crashed \(SIGABRT\) while it was loaded; .* if this happens again"
    ):
        render(output, sound, RATE, host)
    with pytest.raises(EffectError, match="it is now disabled"):
        render(output, sound, RATE, host)
    with pytest.raises(EffectError, match="is disabled because it crashed 2 times"):
        render(output, sound, RATE, host)
    clear_plugins(output, host)
    with pytest.raises(EffectError, match=r"crashed \(SIGABRT\)"):
        render(output, sound, RATE, host)


def test_a_plugin_that_hangs_is_killed_and_noted(tmp_path: Path):
    host = PluginHost(start_s=10, quarantine=Quarantine(tmp_path / "plugins.json"), trusted=None)
    path = made(tmp_path, "for (;;) pause();")
    with pytest.raises(EffectError, match=r"Bad\.vst3' hung \(no answer in 10 s\) while it was loaded"):
        render(one(plugin(path)), {"sound": signals.noise(100)}, RATE, host)
    assert "hung" in host.quarantine.file.read_text()


def test_a_plugin_that_talks_and_listens_does_not_disturb_the_conversation(host: PluginHost, tmp_path: Path):
    noisy = (
        'char c; read(0, &c, 1); for (int i = 0; i < 20000; i++) puts("scanning"); fflush(stdout); write(2, "!", 1);'
    )
    with pytest.raises(EffectError, match=r"The effect VST3 .* failed: "):
        render(one(plugin(made(tmp_path, noisy))), {"sound": signals.noise(100)}, RATE, host)


# ---- a plug-in that works


@pytest.mark.parametrize(("channels", "rate"), [(1, RATE), (2, RATE), (3, RATE), (2, 96_000)])
def test_a_plugin_with_latency_keeps_an_impulse_at_its_sample(host: PluginHost, channels: int, rate: int):
    """ZaMaximX2 looks 480 samples ahead."""
    limiter = real("ZaMaximX2.vst3")
    positions = [0, 5000, 29_000]
    sound = signals.impulses(30_000, positions, channels=channels, amplitude=0.3)
    done = render(one(limiter), {"sound": sound}, rate, host)
    assert done.shape == sound.shape
    np.testing.assert_allclose(done, sound, atol=1e-3)


def test_a_plugin_streams_as_it_renders(host: PluginHost):
    limiter = Effect("VST3", {"threshold_db": -12.0}, path=real("ZaMaximX2.vst3").path)
    output, sound = one(Effect("HighpassFilter"), limiter, Effect("Reverb")), signals.mixture(signals.song(2.0))
    whole = render(output, {"sound": sound}, RATE, host)
    with OutputRenderer(output, RATE, 2, host) as renderer:
        parts = [renderer.process({"sound": sound[:, :7]}), renderer.process({"sound": sound[:, 7:50_001]})]
        parts.append(renderer.process({"sound": sound[:, 50_001:]}, last=True))
    assert np.array_equal(np.concatenate(parts, axis=1), whole)
    assert not np.allclose(whole, sound, atol=0.01)


def test_a_mono_plugin_takes_each_channel(host: PluginHost):
    equaliser = Effect("VST3", {"boost_cut_1_db": 6.0}, path=real("ZamEQ2.vst3").path)
    sound = signals.tone(500, RATE, amplitude=0.1)
    done = render(one(equaliser), {"sound": sound}, RATE, host)
    assert np.array_equal(done[0], done[1])
    assert np.abs(done[:, RATE // 2 :]).max() == pytest.approx(0.1 * 10 ** (6 / 20), rel=0.02)


@pytest.mark.parametrize(
    ("parameters", "what"),
    [
        ({"thresold_db": -3.0}, "has no parameter 'thresold_db'; did you mean 'threshold_db'?"),
        ({"threshold_db": -300.0}, "out of range"),
        ({"threshold_db": "loud"}, "failed: "),
    ],
)
def test_a_wrong_parameter_of_a_plugin_is_named(host: PluginHost, parameters: dict, what: str):
    effect = Effect("VST3", parameters, path=real("ZaMaximX2.vst3").path)
    with pytest.raises(EffectError) as caught:
        render(one(effect), {"sound": signals.noise(100)}, RATE, host)
    assert what in str(caught.value)


@pytest.mark.skipif(not POSIX, reason="signals")
def test_a_plugin_that_dies_at_work_is_the_one_that_is_noted(host: PluginHost, monkeypatch: pytest.MonkeyPatch):
    limiter = real("ZaMaximX2.vst3")
    process = host.open(one(Effect("Gain"), limiter), RATE, 2)

    plain = Conversation.receive

    def heard(self: Conversation, limit_s: float) -> tuple[bytes, bytearray]:
        kind, payload = plain(self, limit_s)
        if kind == b"A" and process.effects[int(payload)].name == "VST3":
            os.kill(process.pid, signal.SIGKILL)  # its answer is larger than a pipe: it cannot have given it yet
        return kind, payload

    monkeypatch.setattr(Conversation, "receive", heard)
    with pytest.raises(EffectError, match=r"ZaMaximX2\.vst3' crashed \(SIGKILL\) while it worked"):
        process.process(signals.noise(4_000_000))
    assert gone(process.pid) and "ZaMaximX2" in host.quarantine.file.read_text()
