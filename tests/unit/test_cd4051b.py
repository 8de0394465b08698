"""CD4051B: truth table, control bits of a bank, and characteristics over the supply."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from drivers.cd4051b import (
    OFF,
    TRUTH_TABLE,
    MuxBank,
    control_high_min_v,
    inhibit_off_s,
    inhibit_on_s,
    r_on_ohm,
    switching_s,
)
from hil.errors import CapabilityError, ConfigError, LimitError


@st.composite
def banks_and_positions(draw: st.DrawFn) -> tuple[MuxBank, np.ndarray]:
    """A bank and positions that it can connect."""
    bank = MuxBank(
        draw(st.integers(1, 5)),
        width=draw(st.integers(1, 8)),
        selects=draw(st.sampled_from(["independent", "common"])),
        inhibit=draw(st.booleans()),
    )
    steps = draw(st.integers(0, 3))
    numbers = st.integers(0, bank.width - 1)
    if bank.selects == "common":
        rows = [[draw(numbers)] * bank.count for _ in range(steps)]
    else:
        rows = [[draw(numbers) for _ in range(bank.count)] for _ in range(steps)]
    positions = np.array(rows, dtype=np.int64).reshape(steps, bank.count)
    if bank.inhibit:
        off = [[draw(st.booleans()) for _ in range(bank.count)] for _ in range(steps)]
        positions[np.array(off, dtype=np.bool_).reshape(positions.shape)] = OFF
    return bank, positions


class TestTruthTable:
    def test_counts_in_binary_and_inhibit_opens_all(self) -> None:
        assert len(TRUTH_TABLE) == 16
        for (inhibit, c, b, a), position in TRUTH_TABLE.items():
            assert position == (OFF if inhibit else 4 * c + 2 * b + a)

    @pytest.mark.parametrize(("inputs", "position"), list(TRUTH_TABLE.items()))
    def test_one_mux_follows_it(self, inputs: tuple[int, int, int, int], position: int) -> None:
        inhibit, c, b, a = inputs
        for selects in ("independent", "common"):
            assert MuxBank(1, selects=selects, inhibit=True).decode([a, b, c, inhibit]).tolist() == [position]


class TestBank:
    @given(banks_and_positions())
    def test_round_trip(self, given_bank: tuple[MuxBank, np.ndarray]) -> None:
        bank, positions = given_bank
        bits = bank.encode(positions)
        assert (bits.dtype, bits.shape) == (np.uint8, (len(positions), bank.n_bits))
        np.testing.assert_array_equal(bank.decode(bits), positions)

    @pytest.mark.parametrize(
        ("selects", "inhibit", "n_bits"),
        [("independent", False, 192), ("independent", True, 256), ("common", False, 3), ("common", True, 67)],
    )
    def test_bits_of_64_muxes(self, selects: Any, inhibit: bool, n_bits: int) -> None:
        assert MuxBank(64, selects=selects, inhibit=inhibit).n_bits == n_bits

    def test_layout_of_independent_selects(self) -> None:
        assert MuxBank(2, inhibit=False).encode([1, 6]).tolist() == [1, 0, 0, 0, 1, 1]
        assert MuxBank(2, inhibit=True).encode([4, OFF]).tolist() == [0, 0, 1, 0, 0, 0, 0, 1]

    def test_layout_of_common_selects(self) -> None:
        assert MuxBank(3, selects="common", inhibit=False).encode([6, 6, 6]).tolist() == [0, 1, 1]
        assert MuxBank(3, selects="common", inhibit=True).encode([OFF, 3, OFF]).tolist() == [1, 1, 0, 1, 0, 1]
        assert MuxBank(3, selects="common", inhibit=True).encode([OFF] * 3).tolist() == [0, 0, 0, 1, 1, 1]

    @pytest.mark.parametrize("selects", ["independent", "common"])
    def test_off_needs_inhibit(self, selects: Any) -> None:
        with pytest.raises(CapabilityError, match="INH"):
            MuxBank(2, selects=selects, inhibit=False).encode([0, OFF])

    def test_common_selects_cannot_differ(self) -> None:
        bank = MuxBank(2, selects="common", inhibit=True)
        with pytest.raises(CapabilityError, match="common select"):
            bank.encode([[1, 1], [0, 1]])

    @pytest.mark.parametrize("position", [-2, 4, 8])
    def test_positions_outside_are_refused(self, position: int) -> None:
        with pytest.raises(LimitError, match=f"{position} is outside -1 .. 3"):
            MuxBank(2, width=4).encode([0, position])

    def test_a_position_beyond_the_width_is_still_decoded(self) -> None:
        assert MuxBank(1, width=4, inhibit=False).decode([1, 0, 1]).tolist() == [5]

    @pytest.mark.parametrize("positions", [[0, 0, 0], 0, [0.0, 1.0], [True, False]])
    def test_other_than_one_whole_number_per_mux_is_refused(self, positions: Any) -> None:
        with pytest.raises(LimitError, match="shape"):
            MuxBank(2).encode(positions)

    @pytest.mark.parametrize("bits", [[0] * 7, 0, [2] + [0] * 7, [-1] + [0] * 7, [0.0] * 8])
    def test_other_than_one_bit_per_control_is_refused(self, bits: Any) -> None:
        with pytest.raises(LimitError):
            MuxBank(2).decode(bits)

    @pytest.mark.parametrize("options", [{"count": 0}, {"count": 1, "width": 9}, {"count": 1, "width": 0},
                                         {"count": 1, "selects": "shared"}])  # fmt: skip
    def test_impossible_banks_are_refused(self, options: dict[str, Any]) -> None:
        with pytest.raises(ConfigError):
            MuxBank(**options)


class TestCharacteristics:
    @pytest.mark.parametrize(
        ("vdd_v", "r_on", "address_ns", "on_ns", "off_ns", "high_v"),
        [
            (5, (470, 1050), 720, 720, 450, 3.5),
            (10, (180, 400), 320, 320, 210, 7),
            (15, (125, 240), 240, 240, 160, 11),
        ],
    )
    def test_columns_of_the_data_sheet(
        self, vdd_v: float, r_on: tuple[float, float], address_ns: float, on_ns: float, off_ns: float, high_v: float
    ) -> None:
        assert r_on_ohm(vdd_v) == r_on
        assert switching_s(vdd_v) == pytest.approx(address_ns * 1e-9)
        assert inhibit_on_s(vdd_v) == pytest.approx(on_ns * 1e-9)
        assert inhibit_off_s(vdd_v) == pytest.approx(off_ns * 1e-9)
        assert control_high_min_v(vdd_v) == pytest.approx(high_v)

    def test_between_columns_is_linear(self) -> None:
        assert r_on_ohm(7.5) == (325, 725)
        assert switching_s(12.5) == pytest.approx(280e-9)

    def test_beyond_the_columns_the_nearest_one_holds(self) -> None:
        assert r_on_ohm(3) == r_on_ohm(5)
        assert r_on_ohm(18) == r_on_ohm(15)

    def test_a_high_scales_with_the_supply_beyond_the_columns(self) -> None:
        assert control_high_min_v(3.3) == pytest.approx(2.31)
        assert control_high_min_v(18) == pytest.approx(13.2)

    def test_3_3_v_logic_cannot_drive_it_at_5_v(self) -> None:
        assert control_high_min_v(5) > 3.3

    @pytest.mark.parametrize("vdd_v", [2.9, 18.1, float("nan")])
    def test_other_supplies_are_refused(self, vdd_v: float) -> None:
        for characteristic in (r_on_ohm, switching_s, inhibit_on_s, inhibit_off_s, control_high_min_v):
            with pytest.raises(ConfigError, match=r"3 \.\. 18 V"):
                characteristic(vdd_v)
