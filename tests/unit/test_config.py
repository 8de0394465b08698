"""Configuration: order of precedence, messages, and that every setting says what it is and where it comes from."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hil.cli.settings import LimitSettings, RootSettings
from hil.config import Settings, load, rows, setting
from hil.errors import ConfigError
from sim_backend.backend import SIM_LIMITS


class Inner(Settings):
    width_s: float = setting(1e-6, "width", unit="s", source="guess", gt=0, le=1e-3)
    kind: Literal["form", "set"] = setting("form", "pulse", source="ours")


class Outer(Settings):
    inner: Inner = Inner()
    name: str = setting("x", "name", source="ours")
    count: int | None = setting(None, "how many", source="user", ge=1)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "settings.toml"


class TestPrecedence:
    def test_default(self) -> None:
        assert load(Outer) == Outer()

    def test_file_beats_default_and_override_beats_file(self, file: Path) -> None:
        file.write_text('name = "from file"\n[inner]\nwidth_s = 2e-6\nkind = "set"\n')
        found = load(Outer, file, ["inner.width_s=3e-6"])
        assert found == Outer(name="from file", inner=Inner(width_s=3e-6, kind="set"))

    def test_last_override_wins(self) -> None:
        assert load(Outer, overrides=["count=1", " count = 2 "]).count == 2

    def test_text_needs_no_quotes(self) -> None:
        assert load(Outer, overrides=["name=a=b c"]).name == "a=b c"
        assert load(Outer, overrides=['name="7"']).name == "7"

    @given(st.floats(1e-9, 1e-3))
    def test_numbers_arrive_exactly(self, value: float) -> None:
        assert load(Outer, overrides=[f"inner.width_s={value!r}"]).inner.width_s == value

    def test_settings_cannot_be_changed(self) -> None:
        with pytest.raises(ValueError, match="frozen"):
            Outer().name = "y"  # type: ignore[misc]


class TestMessages:
    @pytest.mark.parametrize(
        ("text", "parts"),
        [
            ("inner.widht_s=1", ["unknown configuration key 'inner.widht_s'", "did you mean 'inner.width_s'?"]),
            ("zzz=1", ["unknown configuration key 'zzz'", "known keys: inner, name, count"]),
            ("inner.width_s=wide", ["'inner.width_s' = 'wide'", "valid number", "hil config show"]),
            ("inner.width_s=2", ["'inner.width_s' = 2", "less than or equal to 0.001", "hil config show"]),
            ("inner.width_s=0", ["'inner.width_s' = 0", "greater than 0"]),
            ("inner.width_s=nan", ["'inner.width_s' = nan"]),
            ("inner.width_s=inf", ["'inner.width_s' = inf"]),
            ("inner.kind=reset", ["'inner.kind' = 'reset'", "'form' or 'set'"]),
            ("count=0", ["'count' = 0", "greater than or equal to 1"]),
            ("count=1.5", ["'count' = 1.5", "integer"]),
            ("name=[1]", ["'name' = [1]", "string"]),
            ("inner=3", ["'inner' = 3"]),
            ("inner.width_s.x=1", ["'inner.width_s'"]),
            ("name", ["override 'name' is not of the form key=value", "--set section.key=value"]),
            ("=3", ["override '=3' is not of the form key=value"]),
        ],
    )
    def test_override(self, text: str, parts: list[str]) -> None:
        with pytest.raises(ConfigError) as caught:
            load(Outer, overrides=[text])
        for part in parts:
            assert part in str(caught.value)
        assert caught.value.exit_code == 2
        assert caught.value.fix

    def test_override_below_a_value(self) -> None:
        with pytest.raises(ConfigError, match=r"'name\.x=1' goes below 'name', which is a value"):
            load(Outer, overrides=["name=y", "name.x=1"])

    def test_file_is_named(self, file: Path) -> None:
        file.write_text("[inner]\nwidth_s = -1\n")
        with pytest.raises(ConfigError, match=r"'inner\.width_s' = -1 \(from .*settings\.toml or --set\)"):
            load(Outer, file)
        file.write_text("nmae = 'y'\n")
        with pytest.raises(ConfigError, match=r"'nmae' \(from .*settings\.toml or --set\)\. Fix: did you mean 'name'"):
            load(Outer, file)

    @pytest.mark.parametrize("content", [b"name = \n", b"[inner\n", b"name = 'a'\nname = 'b'\n", b"\xff\xfe\x00"])
    def test_not_toml(self, file: Path, content: bytes) -> None:
        file.write_bytes(content)
        with pytest.raises(ConfigError, match=r"settings\.toml is not TOML: .*Fix: correct it"):
            load(Outer, file)

    def test_missing_file(self, file: Path) -> None:
        with pytest.raises(ConfigError, match=r"settings\.toml cannot be read: No such file"):
            load(Outer, file)
        with pytest.raises(ConfigError, match="cannot be read: Is a directory"):
            load(Outer, file.parent)


class TestRootSettings:
    def test_defaults_validate(self) -> None:
        whole = RootSettings().model_dump()
        assert RootSettings.model_validate(whole) == RootSettings()
        assert load(RootSettings) == RootSettings()

    @pytest.mark.parametrize("row", list(rows(RootSettings())), ids=lambda row: row.key)
    def test_every_setting_says_what_it_is_and_where_from(self, row: tuple[str, object, str, str, str]) -> None:
        key, _, unit, text, source = row
        assert text
        assert source or key.endswith(".enabled")
        for suffix, wanted in (("_v", "V"), ("_s", None), ("_ohm", "ohm")):
            if key.endswith(f"_per{suffix}"):
                assert unit.endswith(f"/{wanted}" if wanted else ("/s", "/S"))
            elif key.endswith(suffix):
                assert unit in ({wanted} if wanted else {"s", "S"})

    def test_rows_name_every_key_once(self) -> None:
        keys = [row.key for row in rows(RootSettings())]
        assert len(set(keys)) == len(keys)
        sections = {
            "data",
            "audio",
            "letters",
            "brain",
            "lsm",
            "readout",
            "ntidigits",
            "atv",
            "btv",
            "projection",
            "baseline",
            "energy",
            "array",
            "limits",
            "board",
            "emulator",
            "sim",
            "calibration",
        }
        assert {key.split(".")[0] for key in keys} == sections
        assert next(rows(load(RootSettings, overrides=["data.seed=7", "sim.rows=300"]))).key == "data.dataset"

    def test_no_number_takes_infinity(self) -> None:
        for row in rows(RootSettings()):
            if isinstance(row.value, float):
                for text in ("inf", "nan"):
                    with pytest.raises(ConfigError, match=f"'{row.key}' = {text}"):
                        load(RootSettings, overrides=[f"{row.key}={text}"])

    def test_limits_replace_only_what_is_set(self) -> None:
        limits = LimitSettings(v_read_max_v=0.1, pulses_per_cell_max=3).over(SIM_LIMITS)
        assert (limits.v_read_max_v, limits.pulses_per_cell_max) == (0.1, 3)
        assert limits.v_pulse_max_v == SIM_LIMITS.v_pulse_max_v
        assert math.isfinite(limits.pulse_width_max_s)


def test_the_settings_page_is_current() -> None:
    from hil.cli.settings import RootSettings
    from hil.config import rows

    page = (Path(__file__).parents[2] / "docs" / "reference" / "settings.md").read_text(encoding="utf-8")
    assert [row.key for row in rows(RootSettings()) if f"`{row.key}`" not in page] == []
