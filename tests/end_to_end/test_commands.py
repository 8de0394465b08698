"""Every command: help, examples, machine-readable output; and what importing and linting must show."""

from __future__ import annotations

import functools
import json
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numba
import numpy as np
import pytest
import typer.main
from array_runs import array_run
from boards import INDEPENDENT, as_toml, wide
from calibrations import NETWORK, QUICK, calibrated
from daemons import shared_daemon
from measured import write_forming
from spoken import write_spoken_digits

import experiments.lsm.speed
import firmware_bridge.link_bench
from calibration import noise
from experiments.array.procedures import PROCEDURES
from hil.calibration_file import PARTS
from hil.cli.app import app
from hil.cli.serve import DEFAULT_URL
from hil.fault_map import FaultMap

ROOT = Path(__file__).parents[2]
HEAVY = ("torch", "numba", "scipy", "matplotlib", "sklearn")
LIGHT = ("hil", "hil.session", "hil.config", "hil.runfile", "hil.backend", "hil.cli.app")


def paths(command: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Every group and command of the tree."""
    yield path
    for name, below in getattr(command, "commands", {}).items():
        yield from paths(below, (*path, name))


def is_command(path: tuple[str, ...]) -> bool:
    found: Any = typer.main.get_command(app)
    for name in path:
        found = found.commands[name]
    return not hasattr(found, "commands")


PATHS = list(paths(typer.main.get_command(app)))
COMMANDS = [path for path in PATHS if is_command(path)]
#: run until they are stopped; test_systemd_unit.py and test_link_docs.py run them
ENDLESS = [("serve",)]


def examples(help_text: str) -> list[str]:
    return [line.strip() for line in help_text.splitlines() if line.startswith("  ") and line.split()[:1] == ["hil"]]


@pytest.fixture
def _quick_bench(monkeypatch: pytest.MonkeyPatch) -> None:
    quick = functools.partial(experiments.lsm.speed.measure, n_samples=64, rounds=1)
    monkeypatch.setattr(experiments.lsm.speed, "measure", quick)
    for name, value in (("_ROUNDS", 2), ("_NULL_REQUESTS", 50), ("_NULL_BIG_REQUESTS", 1), ("_SERIAL_BATCHES", 2)):
        monkeypatch.setattr(firmware_bridge.link_bench, name, value)


def test_the_commands_are_known() -> None:
    assert set(COMMANDS) == {
        ("lsm", "nmnist"),
        *(("lsm", name) for name in ("ntidigits", "atv", "btv", "transfer")),
        *(("data", verb) for verb in ("list", "check", "prepare")),
        ("study",),
        ("report",),
        *(("calibrate", verb) for verb in (*PARTS, "all", "validate", "check", "show", "report")),
        *(("array", verb) for verb in (*PROCEDURES, "fit")),
        *(("runs", verb) for verb in ("list", "show", "plot", "compare", "export", "check", "tag")),
        ("backend", "info"),
        ("bench", "lsm"),
        ("bench", "schedule"),
        ("bench", "emulator"),
        ("bench", "link"),
        ("config", "show"),
        ("keys", "new"),
        ("keys", "list"),
        ("keys", "revoke"),
        ("serve",),
        ("watch",),
        ("doctor",),
    }


@pytest.mark.parametrize("path", PATHS, ids=" ".join)
def test_help(hil: Any, path: tuple[str, ...]) -> None:
    ran = hil(*path, "--help")
    assert (ran.code, ran.stderr) == (0, "")
    assert ran.stdout.startswith(f"Usage: {' '.join(('hil', *path))}")
    if path in COMMANDS:
        assert examples(ran.stdout), "no example"


@pytest.fixture
def _quick_noise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("calibration.noise.measure", functools.partial(noise.measure, options=QUICK))


def _needs_calibration(path: tuple[str, ...]) -> bool:
    return path[0] == "calibrate" or path == ("lsm", "transfer")


def _grouped(path: tuple[str, ...]) -> Any:
    """On one worker of pytest-xdist, where they share the boards that were calibrated once."""
    marks = [pytest.mark.xdist_group("calibrate")] if _needs_calibration(path) else []
    return pytest.param(path, marks=marks, id=" ".join(path))


@pytest.fixture
def _no_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process takes seconds to load what this one has loaded; test_study.py starts them."""

    def in_turn(tasks: Any, work: Any, jobs: int, done: Any) -> None:
        for index, task in enumerate(tasks):
            done(index, work(task))

    monkeypatch.setattr("experiments.studies.run.work_through", in_turn)


@pytest.mark.usefixtures("_quick_bench", "_quick_noise", "_no_processes")
@pytest.mark.parametrize("path", [_grouped(path) for path in COMMANDS if path not in ENDLESS])
def test_examples_of_the_help_work(
    hil: Any, nmnist_archive: Path, tmp_path: Path, request: pytest.FixtureRequest, path: tuple[str, ...]
) -> None:
    if path[0] in ("lsm", "study", "report"):
        request.getfixturevalue("blank_figures")
    shutil.copy(nmnist_archive, tmp_path / "nmnist.tar.gz")
    board = wide() if path in _HEARING else INDEPENDENT
    (tmp_path / "board.toml").write_text(as_toml(board))
    if path == ("lsm", "ntidigits"):
        write_spoken_digits(tmp_path / "recordings.tar.gz")
    FaultMap.healthy_array((INDEPENDENT["rows"], INDEPENDENT["cols"])).save(tmp_path / "faults.npz")
    write_forming(tmp_path / "form.csv")
    np.save(tmp_path / "gradient.npy", np.linspace(2e-6, 25e-6, 64).reshape(8, 8))
    if path[0] == "runs":
        monday = array_run(tmp_path / "runs")
        array_run(tmp_path / "runs")
        assert hil("runs", "tag", monday, "monday").code == 0
    if _needs_calibration(path):
        shutil.copytree(calibrated(), tmp_path, dirs_exist_ok=True)
    for example in examples(hil(*path, "--help").stdout):
        if DEFAULT_URL in example:
            example = example.replace(DEFAULT_URL, shared_daemon("tcp"))
        shutil.rmtree(tmp_path / "keys", ignore_errors=True)
        for credential in tmp_path.glob("*.hilkey"):
            credential.unlink()
        if path == ("keys", "revoke"):
            assert hil("keys", "new", "alice").code == 0
        _, *arguments = shlex.split(example)
        ran = hil(*arguments, *_fewer_cells(path, arguments))
        assert ran.code == 0, f"{example}: {ran.stderr}"
        assert ran.stdout
        if "--json" in arguments:
            assert ran.json


#: commands whose network has 64 inputs at least
_HEARING = (("lsm", "ntidigits"), ("lsm", "atv"))
_CELLS = [f"sim.rows={INDEPENDENT['rows']}", f"sim.cols={INDEPENDENT['cols']}"]
_BASELINES = [
    "baseline.n_neurons=8", "baseline.steps_min=1", "baseline.vision.srnn_ann.epochs=1", "baseline.audio.rnn.epochs=1",
    "baseline.atv.lsm_proto.epochs=2",
]  # fmt: skip
_VISION = [*NETWORK[1::2], *_CELLS, *_BASELINES]
_AUDIO = [*NETWORK[1::2], *_BASELINES, "sim.rows=72", "sim.cols=16", "audio.n_train=40", "audio.n_test=20"]
_BOTH = [
    *_AUDIO, "audio.n_train=400", "audio.n_test=150", "data.input_px=8", "data.n_train=300", "data.n_test=150",
    "projection.epochs=2", "projection.penalties=[0.1]",
]  # fmt: skip
_TILES = [
    "sim.rows=64", "sim.cols=16", "btv.n_neurons=8", "btv.macros=2", "btv.windows=[0]", "btv.projection.epochs=1",
    "btv.shots=[0,2]", "brain.trials=6", "brain.test_trials=2", "letters.train_per_class=6", "letters.test_per_class=2",
]  # fmt: skip
#: settings that a model does not use, and refuses
_REFUSED = {"srnn-ann": "lsm.n_neurons", "rnn": "lsm.n_neurons", "lsm-proto": "projection."}
#: settings that make the examples of a command take a second
_SMALL = {
    ("lsm", "nmnist"): _VISION,
    ("study",): _VISION,
    ("report",): _VISION,
    ("lsm", "ntidigits"): _AUDIO,
    ("lsm", "atv"): _BOTH,
    ("lsm", "btv"): _TILES,
}


def _fewer_cells(path: tuple[str, ...], arguments: list[str]) -> list[str]:
    """An array that is drawn and kept quickly, for the commands that take one."""
    if arguments[0] == "calibrate":
        if arguments[1] in ("show", "report"):
            return []
        return NETWORK if path in (("lsm", "transfer"), ("calibrate", "validate")) else NETWORK[:2]
    if path == ("lsm", "transfer"):
        return NETWORK
    if path in _SMALL:
        refused = next((_REFUSED[model] for model in arguments if model in _REFUSED), "nothing")
        chosen = [key_value for key_value in _SMALL[path] if not key_value.startswith(refused)]
        return [text for key_value in chosen for text in ("--set", key_value)]
    return ["--set", "sim.rows=16", "--set", "sim.cols=16"] if path[0] == "array" and path[1] != "fit" else []


def test_no_arguments_show_the_help(hil: Any) -> None:
    ran = hil()
    assert "Usage: hil" in ran.stdout + ran.stderr


def test_version(hil: Any) -> None:
    ran = hil("--version")
    assert ran.code == 0
    assert ran.stdout.startswith("crossbar-hil ")


def test_doctor(hil: Any) -> None:
    found = hil("doctor", "--json").json
    assert found["ok"] is True
    assert {"works"} == {finding["state"] for finding in found["findings"]}
    assert {"numba kernels", "torch", "run files", "disk"} <= {finding["what"] for finding in found["findings"]}
    assert "numba kernels" in hil("doctor").stdout


def test_doctor_names_the_fix(hil: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hil.checks.installed", lambda name: None if name in ("torch", "h5py") else "1.0")
    ran = hil("doctor", "--json")
    assert ran.code == 1
    found = json.loads(ran.stdout)
    assert found["ok"] is False
    by_name = {finding["what"]: finding for finding in found["findings"]}
    assert by_name["package h5py"]["state"] == "broken"
    assert by_name["package h5py"]["fix"] == "pip install h5py"
    assert by_name["package torch"]["state"] == "missing"
    assert by_name["package torch"]["fix"] == 'pip install "crossbar-hil[sim]"'


def test_doctor_looks_further_when_only_the_lab_is_missing(hil: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hil.checks.installed", lambda name: None if name == "pyserial" else "1.0")
    found = {finding["what"]: finding for finding in hil("doctor", "--json").json["findings"]}
    assert found["package pyserial"]["fix"] == 'pip install "crossbar-hil[lab]"'
    assert found["numba kernels"]["state"] == "works"


def test_a_bench_of_links_without_pyserial_says_so_at_once(hil: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hil.cli.extras.find_spec", lambda name: None if name == "serial" else object())
    ran = hil("bench", "link")
    assert ran.code == 2
    assert 'pip install "crossbar-hil[lab]"' in ran.stderr


def test_a_missing_package_is_named(hil: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hil.cli.extras.find_spec", lambda name: None if name == "numba" else object())
    ran = hil("lsm", "nmnist")
    assert ran.code == 2
    assert "needs the package 'numba'" in ran.stderr
    assert 'pip install "crossbar-hil[sim]"' in ran.stderr


def test_backend_info(hil: Any) -> None:
    found = hil("backend", "info", "--seed", 3, "--set", "sim.rows=300", "--json").json
    assert (found["name"], found["shape"], found["calibration_id"]) == ("sim", [300, 512], None)
    assert found["identity"]["seed"] == 3
    assert found["limits"]["v_read_max_v"] == 0.5
    assert "300 rows x 512 columns" in hil("backend", "info", "--set", "sim.rows=300").stdout


def test_config_show(hil: Any, tmp_path: Path) -> None:
    (tmp_path / "my.toml").write_text("[lsm]\ndecay = 0.8\nn_neurons = 50\n")
    found = hil("config", "show", "--config", "my.toml", "--set", "lsm.decay=0.7", "--json").json
    assert (found["lsm.decay"]["value"], found["lsm.n_neurons"]["value"]) == (0.7, 50)
    assert found["lsm.v_read_v"] == {"value": 0.2, "unit": "V", "source": "guess: not published"}
    shown = hil("config", "show").stdout
    assert "lsm.decay" in shown
    assert "grid search" in " ".join(shown.split())


@pytest.mark.parametrize("threads", [1, 2])
def test_bench(hil: Any, monkeypatch: pytest.MonkeyPatch, threads: int) -> None:
    if threads > numba.config.NUMBA_NUM_THREADS:
        pytest.skip(f"this machine has {numba.config.NUMBA_NUM_THREADS} core")
    numba.set_num_threads(threads)
    speed = functools.partial(
        experiments.lsm.speed.Speed, dense_torch=10.0, engine_ideal=40.0, engine_full=20.0, ratio_ideal=4.0,
        ratio_full=2.0,
    )  # fmt: skip
    monkeypatch.setattr(experiments.lsm.speed, "measure", lambda *_, threads, seed: speed(threads=threads))
    found = hil("bench", "lsm", "--json").json
    keys = {"threads", "dense_torch", "engine_ideal", "engine_full", "ratio_ideal", "ratio_full"}
    assert set(found) == {*keys, "two_threads"}
    assert found["threads"] == 1
    assert (found["ratio_ideal"], found["ratio_full"]) == (4.0, 2.0)
    if threads == 2:
        assert set(found["two_threads"]) == keys
    else:
        assert found["two_threads"] is None


def test_log_file(hil: Any, tmp_path: Path) -> None:
    ran = hil("-vv", "--log-file", "log.txt", "backend", "info", "--json")
    assert ran.code == 0
    assert (tmp_path / "log.txt").exists()
    assert ran.stderr == ""


class TestImports:
    @pytest.mark.parametrize("module", LIGHT)
    def test_light(self, spawn: Any, module: str) -> None:
        """What the board's ARM runs, and `hil --help`, load nothing heavy."""
        code = f"import sys, {module}; print([m for m in {HEAVY} if m in sys.modules])"
        process = spawn("-c", code)
        assert process.communicate(timeout=30) == ("[]\n", "")

    def test_help_is_light(self, spawn: Any) -> None:
        code = (
            "import atexit, sys\n"
            f"atexit.register(lambda: print('loaded:', [m for m in {HEAVY} if m in sys.modules]))\n"
            "sys.argv = ['hil', 'lsm', 'nmnist', '--help']\n"
            "from hil.cli import main\n"
            "main()\n"
        )
        output, noise = spawn("-c", code).communicate(timeout=30)
        assert noise == ""
        assert "Usage: hil lsm nmnist" in output
        assert output.endswith("loaded: []\n")


class TestTools:
    def test_import_direction(self, spawn: Any) -> None:
        code = "from importlinter.cli import lint_imports_command as lint; lint(['--no-cache'])"
        process = spawn("-W", "ignore", "-c", code)
        output, noise = process.communicate(timeout=60)
        assert process.returncode == 0, output + noise
        assert "0 broken" in output

    @pytest.mark.parametrize("arguments", [["check"], ["format", "--check"]], ids=" ".join)
    def test_ruff(self, spawn: Any, arguments: list[str]) -> None:
        process = spawn("-m", "ruff", *arguments, "--no-cache", ".")
        output, noise = process.communicate(timeout=60)
        assert process.returncode == 0, output + noise
