"""`hil array fit`: measured cells in, settings of a simulator with such cells out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from measured import MEAN_V, SIGMA_V, write_forming

from hil.cli.settings import load_settings

DATA = Path(__file__).parents[3] / "shared" / "data" / "rram-1t1r"


def test_it_finds_what_the_cells_were_drawn_from(hil: Any, tmp_path: Path) -> None:
    found = hil("array", "fit", "--model", "forming", str(write_forming(tmp_path / "form.csv")), "--json").json
    mean, sigma = (found["parameters"][f"breakdown_{name}_v"] for name in ("mean", "sigma"))
    assert mean["value"] == pytest.approx(MEAN_V, abs=6 * mean["error"])
    assert sigma["value"] == pytest.approx(SIGMA_V, abs=6 * sigma["error"])
    assert found["distances"]["forming voltage (V)"]["ks"] < 0.12
    assert found["settings"]["sim.forming.breakdown_mean_v"] == mean["value"]
    for path in found["figures"]:
        assert (tmp_path / path).read_bytes()[:4] in (b"\x89PNG", b"<?xm")


def test_what_it_saves_is_a_configuration(hil: Any, tmp_path: Path) -> None:
    write_forming(tmp_path / "form.csv")
    ran = hil("array", "fit", "--model", "forming", "form.csv", "--save", "forming.toml")
    assert ran.code == 0
    assert "forming.toml" in ran.stdout
    settings = load_settings(tmp_path / "forming.toml", [])
    assert settings.sim.forming.breakdown_mean_v == pytest.approx(MEAN_V, abs=0.05)
    assert settings.sim.forming.preset == "custom"


def test_figures_of_files_that_differ_after_a_dot_are_kept_apart(hil: Any, tmp_path: Path) -> None:
    names = [write_forming(tmp_path / f"form-0.05-{day}.csv").name for day in ("monday", "friday")]
    figures = [hil("array", "fit", "--model", "forming", name, "--json").json["figures"] for name in names]
    assert not set(figures[0]) & set(figures[1])
    assert all("form-0.05-monday." in path for path in figures[0])


@pytest.mark.parametrize(
    ("model", "content", "says"),
    [
        ("magic", "1\t2\t3\t4\t1\n", "magic"),
        ("forming", "1\t2\t3\n", "line 1"),
        ("forming", "", "no rows"),
        ("noise", "1\t2\t3\t4\t1\n", ".npz"),
    ],
)
def test_wrong_models_and_files_are_named(hil: Any, tmp_path: Path, model: str, content: str, says: str) -> None:
    (tmp_path / "rows.csv").write_text(content)
    ran = hil("array", "fit", "--model", model, "rows.csv", "--save", "x.toml")
    assert ran.code
    assert says in ran.stderr
    assert "Fix:" in ran.stderr
    assert not (tmp_path / "x.toml").exists()


@pytest.mark.skipif(not DATA.exists(), reason="no measured data in ../shared/data")
@pytest.mark.parametrize("name", ["form-5-23-20", "form-6-10-20"])
def test_measured_forming_voltages_are_repeated(hil: Any, name: str) -> None:
    found = hil("array", "fit", "--model", "forming", str(DATA / f"{name}.csv.gz"), "--json").json
    assert found["distances"]["forming voltage (V)"]["ks"] <= 0.05
