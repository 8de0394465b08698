"""Board profile: shipped profiles load, contradictions are named, indices map one to one."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic.fields import FieldInfo

from firmware_bridge.profile import SHIPPED_FOLDER, BoardProfile, entries, load_profile, profile_from, shipped_profiles
from firmware_bridge.profile_rules import RULES, ChipRule, Rule, first_broken
from hil.errors import ConfigError, LimitError

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "board-profile.md"


def tree_of(base: str, changes: dict[str, Any]) -> dict[str, Any]:
    """A shipped profile as nested dictionaries, with changes by dotted key."""
    tree = load_profile(base).model_dump()
    for key, value in changes.items():
        *sections, name = key.split(".")
        place = tree
        for section in sections:
            place = place[section]
        place[name] = value
    return tree


def changed(base: str, **changes: Any) -> BoardProfile:
    return profile_from(tree_of(base, {key.replace("__", "."): value for key, value in changes.items()}), "test")


def unchecked(base: str, changes: dict[str, Any]) -> BoardProfile:
    """The same, past all checks."""
    profile = load_profile(base)
    for key, wanted in changes.items():
        value: Any = tuple(wanted) if isinstance(wanted, list) else wanted
        *sections, name = key.split(".")
        owners: list[Any] = [profile]
        for section in sections:
            owners.append(getattr(owners[-1], section))
        for owner, part in zip(reversed(owners), reversed([*sections, name]), strict=True):
            value = owner.model_copy(update={part: value})
        profile = value
    return profile


class TestShippedProfiles:
    def test_all_load_by_name_and_carry_their_file_name(self) -> None:
        assert shipped_profiles() == ["paper-guess", "tiny-8x8"]
        assert [load_profile(name).name for name in shipped_profiles()] == shipped_profiles()

    def test_paper_guess_has_what_the_paper_states(self) -> None:
        paper = load_profile("paper-guess")
        assert (paper.rows, paper.cols) == (512, 512)
        assert len(paper.dac.row_chips) == 8
        assert paper.dac.output_range.span_v == 5.0

    def test_paper_guess_marks_what_the_paper_does_not_state(self) -> None:
        guesses = load_profile("paper-guess").guesses
        keys = {key for key, _ in entries()}
        assert guesses.keys() <= keys
        for section in ("mux.", "adc.", "tia.", "chains.", "programming."):
            assert {key for key in keys if key.startswith(section)} <= guesses.keys()

    def test_tiny_takes_the_other_options(self) -> None:
        paper, tiny = load_profile("paper-guess"), load_profile("tiny-8x8")
        for section, name in (("mux", "selects"), ("mux", "inhibit"), ("mux", "width"), ("dac", "crc"),
                              ("adc", "columns")):  # fmt: skip
            assert getattr(getattr(paper, section), name) != getattr(getattr(tiny, section), name)
        assert tiny.limits.pulses_per_cell_max < paper.limits.pulses_per_cell_max


class TestLoading:
    def test_a_path_loads_what_a_name_loads(self, tmp_path: Path) -> None:
        copy = tmp_path / "mine.toml"
        copy.write_text((SHIPPED_FOLDER / "tiny-8x8.toml").read_text(encoding="utf-8"), encoding="utf-8")
        assert load_profile(str(copy)) == load_profile(copy) == load_profile("tiny-8x8")

    def test_an_unknown_name_lists_the_shipped_ones(self) -> None:
        with pytest.raises(ConfigError, match=r"unknown board profile 'big'.*paper-guess, tiny-8x8.*\.toml"):
            load_profile("big")

    def test_a_missing_file_is_named(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match=r"none\.toml cannot be read: No such file"):
            load_profile(str(tmp_path / "none.toml"))

    def test_a_file_that_is_not_toml_is_named(self, tmp_path: Path) -> None:
        (tmp_path / "bad.toml").write_text("rows = \n")
        with pytest.raises(ConfigError, match=r"bad\.toml is not TOML"):
            load_profile(str(tmp_path / "bad.toml"))

    def test_an_error_of_a_file_names_file_entry_and_fix(self, tmp_path: Path) -> None:
        file = tmp_path / "board.toml"
        file.write_text("name = 'x'\nrows = 8\n")
        with pytest.raises(ConfigError) as caught:
            load_profile(str(file))
        assert caught.value.what == f"board profile {file}: entry cols: is missing"
        assert "add it" in caught.value.fix

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"dac.chipz": 3}, r"entry dac\.chipz: no such entry\. Fix: did you mean 'dac\.chips'"),
            ({"tia.q": 3}, r"entry tia\.q: no such entry\. Fix: docs/reference/board-profile\.md"),
            ({"dac.chips": 17}, r"entry dac\.chips: is 17; input should be less than or equal to 16"),
            ({"dac.gate_channel": [1, "b"]}, r"entry dac\.gate_channel\.1: is 'b'; input should be a valid integer"),
            ({"mux.selects": "shared"}, r"entry mux\.selects: is 'shared'; input should be 'independent' or 'common'"),
            ({"tia.settle_s": float("nan")}, r"entry tia\.settle_s: is nan; input should be a finite number"),
            (
                {"limits.pulse_width_min_s": 5e-9},
                r"entry limits\.pulse_width_min_s: is 5e-09; input should be greater than or equal to 0\.00000001",
            ),
            ({"limits.watchdog_s": 0}, r"entry limits\.watchdog_s: is 0; input should be greater than 0"),
            ({"guesses": {"dac.vd_v": "?"}}, r"entry guesses: 'dac\.vd_v' is no entry .*did you mean 'dac\.vdd_v'"),
            ({"guesses": {"dac.vdd_v": " "}}, r"entry guesses: 'dac\.vdd_v' has no reason\. Fix: say"),
            ({"guesses": {"dac": {"vdd_v": "?"}}}, r"entry guesses\.dac: .*string\. Fix: write the key in quotes"),
        ],
    )
    def test_a_wrong_entry_is_named_with_its_value(self, changes: dict[str, Any], message: str) -> None:
        with pytest.raises(ConfigError, match=f"^board profile board.toml: {message}"):
            profile_from(tree_of("tiny-8x8", changes), "board.toml")


# base, changes, entry that the message names, what it says. Every rule has one case or more.
CONTRADICTIONS: list[tuple[str, dict[str, Any], str, str]] = [
    ("tiny-8x8", {"dac.row_chips": [2]}, "dac.row_chips", r"\(2,\) does not name chips of the 2"),
    ("tiny-8x8", {"dac.row_chips": [-1]}, "dac.row_chips", "does not name chips"),
    ("tiny-8x8", {"dac.row_chips": []}, "dac.row_chips", "does not name chips"),
    ("paper-guess", {"dac.row_chips": [0, 1, 2, 3, 4, 5, 6, 6]}, "dac.row_chips", "names a chip twice"),
    ("paper-guess", {"mux.count": 65, "rows": 520}, "mux.count", "65 muxes need more channels than the 8"),
    ("tiny-8x8", {"dac.gate_channel": [2, 0]}, "dac.gate_channel", r"\(2, 0\) is no \(chip, channel\) of 2 chips"),
    ("tiny-8x8", {"dac.gate_channel": [1, 8]}, "dac.gate_channel", r"\(1, 8\) is no"),
    ("tiny-8x8", {"dac.gate_channel": [0, 3]}, "dac.gate_channel", r"\(0, 3\) drives a row"),
    ("tiny-8x8", {"dac.source_line_channel": [-1, 0]}, "dac.source_line_channel", r"\(-1, 0\) is no"),
    ("tiny-8x8", {"dac.source_line_channel": [0, 0]}, "dac.source_line_channel", "drives a row"),
    ("tiny-8x8", {"dac.source_line_channel": [1, 0]}, "dac.source_line_channel", "is dac.gate_channel too"),
    ("tiny-8x8", {"dac.v_reference_v": 2.4}, "dac.v_reference_v", "2.4 V is not the 2.5 V of the internal"),
    ("tiny-8x8", {"dac.vdd_v": 3.3, "dac.gain": 1}, "dac.vdd_v", "3.3 V is below 5 V"),
    ("tiny-8x8", {"dac.vdd_v": 2.7, "dac.divide": 2, "dac.v_reference_v": 3.0, "dac.reference": "external"},
     "dac.vdd_v", "2.7 V is below 3 V"),
    ("tiny-8x8", {"dac.vdd_v": 4.9}, "dac.vdd_v", "4.9 V is below 5 V"),
    ("tiny-8x8", {"dac.vdd_v": 5.0}, "dac.vdd_v", "5 V is just twice the undivided reference of 2.5 V"),
    ("tiny-8x8", {"tia.v_common_v": 0.02}, "tia.v_common_v", "virtual ground of 0.02 V with a lowest output"),
    ("tiny-8x8", {"tia.v_common_v": 1.8}, "tia.v_common_v", "1.8 V, the output at no current, is not below 1.79"),
    ("tiny-8x8", {"adc.minus_input": "ground"}, "tia.v_common_v", "not below 0.89"),
    ("tiny-8x8", {"rows": 6}, "rows", "6 rows do not fit mux.count = 4 muxes of mux.width = 2"),
    ("tiny-8x8", {"rows": 9}, "rows", "9 rows do not fit"),
    ("tiny-8x8", {"mux.selects": "independent"}, "chains.rows.chips", "1 chips have 8 outputs; the muxes need 12"),
    ("paper-guess", {"chains.rows.chips": 31}, "chains.rows.chips", "248 outputs; the muxes need 256"),
    ("tiny-8x8", {"cols": 9, "adc.count": 3}, "chains.word_lines.chips", "8 outputs for 9 columns"),
    ("tiny-8x8", {"chains.clock_hz": 25.1e6}, "chains.clock_hz", "is above the 2.5e.07 Hz of a cascade at 4.5 V"),
    ("paper-guess", {"chains.clock_hz": 15.5e6}, "chains.clock_hz", "is above the 1.53846e.07 Hz"),
    ("tiny-8x8", {"adc.positions": 3}, "adc.positions", "2 converters with 3 positions serve fewer than 8 columns"),
    ("tiny-8x8", {"adc.v_reference_v": 1.0}, "adc.v_reference_v", "reference of 1.0 V is outside 0.5 .. 0.9 V"),
    ("tiny-8x8", {"limits.v_read_max_v": 3.5}, "limits.v_read_max_v", "output of 5.1 V is outside 0 .. 4.9999"),
    ("tiny-8x8", {"limits.v_pulse_max_v": 5.0}, "limits.v_pulse_max_v", "output of 5 V is outside 0 .. 4.9999"),
    ("tiny-8x8", {"limits.v_gate_max_v": 5.0}, "limits.v_gate_max_v", "output of 5 V is outside 0 .. 4.9999"),
    ("tiny-8x8", {"limits.v_gate_read_v": 4.1}, "limits.v_gate_read_v", "4.1 V is above limits.v_gate_max_v = 4 V"),
    ("tiny-8x8", {"mux.vdd_v": 3.9}, "mux.vdd_v", "3.9 V is below the largest voltage"),
    ("tiny-8x8", {"mux.vdd_v": 3.0, "programming.reset": None, "limits.v_read_max_v": 1.5}, "mux.vdd_v", "3 V is"),
    ("tiny-8x8", {"limits.pulse_width_max_s": 0.9e-7}, "limits.pulse_width_max_s", "9e-08 s is below"),
]  # fmt: skip


class TestContradictions:
    @pytest.mark.parametrize(
        ("base", "changes", "entry", "why"),
        CONTRADICTIONS,
        ids=[f"{entry}-{number}" for number, (_, _, entry, _) in enumerate(CONTRADICTIONS)],
    )
    def test_is_refused_naming_the_entry(self, base: str, changes: dict[str, Any], entry: str, why: str) -> None:
        with pytest.raises(ConfigError, match=rf"^board profile b\.toml: entry {re.escape(entry)}: .*{why}.* Fix: .+"):
            profile_from(tree_of(base, changes), "b.toml")

    def test_every_rule_has_a_case(self) -> None:
        def rule_of(base: str, changes: dict[str, Any]) -> Rule | ChipRule:
            return next(rule for rule in RULES if rule.broken(unchecked(base, changes)))

        assert {rule_of(base, changes) for base, changes, _, _ in CONTRADICTIONS} == set(RULES)

    @pytest.mark.parametrize("name", ["paper-guess", "tiny-8x8"])
    def test_a_shipped_profile_has_none(self, name: str) -> None:
        assert first_broken(load_profile(name)) is None

    @pytest.mark.parametrize(
        "changes",
        [
            {"rows": 7},
            {"dac.gate_channel": [0, 4]},
            {"dac.vdd_v": 5.01},
            {"dac.vdd_v": 2.7, "dac.divide": 2, "limits.v_pulse_max_v": 2.4, "limits.v_gate_max_v": 2.4,
             "limits.v_gate_read_v": 2.4},
            {"mux.vdd_v": 3.0, "programming.reset": None},
            {"adc.minus_input": "ground", "tia.v_common_v": 0.8},
            {"chains.clock_hz": 24.9e6},
            {"limits.pulse_width_max_s": 1e-7},
        ],
    )  # fmt: skip
    def test_just_within_a_rule_is_accepted(self, changes: dict[str, Any]) -> None:
        profile_from(tree_of("tiny-8x8", changes), "b.toml")


class TestRows:
    @pytest.mark.parametrize(
        ("selects", "inhibit", "bits"),
        [("independent", True, 256), ("independent", False, 192), ("common", True, 67), ("common", False, 3)],
    )
    def test_mux_bits(self, selects: str, inhibit: bool, bits: int) -> None:
        assert changed("paper-guess", mux__selects=selects, mux__inhibit=inhibit).mux_bits == bits

    def test_row_is_width_times_mux_plus_position(self) -> None:
        tiny = load_profile("tiny-8x8")
        rows = np.arange(tiny.rows)
        np.testing.assert_array_equal(tiny.row_mux(rows), [0, 0, 1, 1, 2, 2, 3, 3])
        np.testing.assert_array_equal(tiny.row_position(rows), [0, 1, 0, 1, 0, 1, 0, 1])

    def test_muxes_take_the_row_chips_in_their_order(self) -> None:
        shuffled = changed("paper-guess", dac__row_chips=[8, 1, 2, 3, 4, 5, 6, 7], dac__gate_channel=[0, 0],
                           dac__source_line_channel=[0, 1])  # fmt: skip
        chips, channels = shuffled.row_channel([0, 7, 8, 63])
        np.testing.assert_array_equal(chips, [8, 8, 1, 7])
        np.testing.assert_array_equal(channels, [0, 7, 0, 7])

    def test_one_index_gives_one_number(self) -> None:
        assert load_profile("paper-guess").row_mux(511) == 63

    @pytest.mark.parametrize("row", [-1, 8])
    def test_a_row_that_does_not_exist_is_refused(self, row: int) -> None:
        with pytest.raises(LimitError, match=f"no row {row}: the board has 8"):
            load_profile("tiny-8x8").row_mux([0, row])


@st.composite
def adc_layouts(draw: st.DrawFn) -> BoardProfile:
    count, positions = draw(st.integers(1, 16)), draw(st.integers(1, 20))
    cols = draw(st.integers(1, count * positions))
    layout = draw(st.sampled_from(["interleaved", "blocks"]))
    return unchecked("tiny-8x8", {"cols": cols, "adc.count": count, "adc.positions": positions, "adc.columns": layout})


class TestColumns:
    @given(adc_layouts())
    @settings(max_examples=60, deadline=None)
    def test_columns_and_their_places_map_one_to_one(self, profile: BoardProfile) -> None:
        cols = np.arange(profile.cols)
        positions, lanes = profile.column_position(cols), profile.column_lane(cols)
        assert positions.max() < profile.adc.positions
        assert lanes.max() < profile.adc.count
        np.testing.assert_array_equal(profile.column_of(positions, lanes), cols)

        seen = profile.column_of(np.arange(profile.adc.positions)[:, None], np.arange(profile.adc.count))
        np.testing.assert_array_equal(np.sort(seen[seen >= 0]), cols)
        assert (seen == -1).sum() == profile.adc.count * profile.adc.positions - profile.cols

    def test_interleaved_neighbours_share_a_position(self) -> None:
        paper = load_profile("paper-guess")
        assert paper.column_position(range(8)).tolist() == [0] * 8
        assert paper.column_lane(range(8)).tolist() == list(range(8))

    def test_blocks_give_neighbours_to_one_converter(self) -> None:
        tiny = load_profile("tiny-8x8")
        assert tiny.column_lane(range(8)).tolist() == [0, 0, 0, 0, 1, 1, 1, 1]
        assert tiny.column_position(range(8)).tolist() == [0, 1, 2, 3, 0, 1, 2, 3]

    def test_a_place_that_does_not_exist_is_refused(self) -> None:
        tiny = load_profile("tiny-8x8")
        with pytest.raises(LimitError, match="no lane 2: the board has 2"):
            tiny.column_of(0, 2)
        with pytest.raises(LimitError, match="no source-line mux position 4"):
            tiny.column_of(4, 0)
        with pytest.raises(LimitError, match="no column 8"):
            tiny.column_lane(8)


class TestFingerprint:
    def test_equal_boards_have_equal_fingerprints(self) -> None:
        assert load_profile("tiny-8x8").fingerprint == changed("tiny-8x8").fingerprint
        assert re.fullmatch("[0-9a-f]{16}", load_profile("tiny-8x8").fingerprint)

    def test_any_entry_changes_it(self) -> None:
        prints = [load_profile(name).fingerprint for name in shipped_profiles()]
        prints += [changed("tiny-8x8", **change).fingerprint for change in (
            {"name": "other"}, {"rows": 7}, {"tia__r_feedback_ohm": 20001}, {"programming__form": None})]  # fmt: skip
        assert len(set(prints)) == len(prints)

    def test_what_is_said_about_guesses_does_not(self) -> None:
        talked_about = changed("tiny-8x8", guesses={"dac.vdd_v": "measured by ear"})
        assert talked_about.fingerprint == load_profile("tiny-8x8").fingerprint


_SIGNS = {"ge": ">=", "gt": ">", "le": "<=", "lt": "<", "min_length": "length >="}


def limit_of(field: FieldInfo) -> str:
    """Limits as the page states them: the choices, or the bounds."""
    parts = [part for outer in (field.annotation, *get_args(field.annotation)) for part in get_args(outer)]
    choices = [str(part) for part in parts if isinstance(part, (str, int))]
    if choices:
        return ", ".join(choices)
    bounds = [(name, getattr(part, name, None)) for part in field.metadata for name in _SIGNS]
    return ", ".join(f"{_SIGNS[name]} {bound:g}" for name, bound in bounds if bound is not None)


def default_of(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    if field.default in (None, {}):
        return "none"
    if isinstance(field.default, bool):
        return str(field.default).lower()
    return f"{field.default:g}" if isinstance(field.default, float) else str(field.default)


def entry_row(key: str, field: FieldInfo) -> str:
    extra = field.json_schema_extra
    assert isinstance(extra, dict)
    return f"| `{key}` | {default_of(field)} | {extra['unit']} | {field.description} | {limit_of(field)} |"


def page_rows() -> list[str]:
    """The table rows of the reference page, one per entry, then one per rule."""
    rows = [entry_row(key, field) for key, field in entries()]
    return rows + [f"| `{rule.entry}` | {rule.must} |" for rule in RULES]


def test_the_reference_page_has_every_entry_and_rule() -> None:
    text = PAGE.read_text(encoding="utf-8").partition("## In Python")[0]
    stated = [line for line in text.splitlines() if line.startswith("| `")]
    assert stated == page_rows()
