"""CD4051B model: truth table and the wiring of the whole bank."""

from __future__ import annotations

from typing import Literal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drivers.cd4051b import MuxBank
from firmware_bridge.emulator.chips.cd4051b import MuxBankChips, on_channel
from hil.errors import ConfigError

#: INH C B A -> channel, as printed in the data sheet
TRUTH_TABLE = {
    (0, 0, 0, 0): 0, (0, 0, 0, 1): 1, (0, 0, 1, 0): 2, (0, 0, 1, 1): 3,
    (0, 1, 0, 0): 4, (0, 1, 0, 1): 5, (0, 1, 1, 0): 6, (0, 1, 1, 1): 7,
}  # fmt: skip


@pytest.mark.parametrize("pins", list(np.ndindex(2, 2, 2, 2)))
def test_truth_table(pins: tuple[int, int, int, int]) -> None:
    inh, c, b, a = pins
    assert on_channel(a, b, c, inh) == TRUTH_TABLE.get(pins, -1)


def expected(outputs: int, count: int, width: int, selects: str, inhibit: bool) -> list[int]:
    """Follow the wires of each mux by hand."""
    positions = []
    for mux in range(count):
        first = (3 + inhibit) * mux if selects == "independent" else 0
        inh_bit = first + 3 if selects == "independent" else 3 + mux
        a, b, c = (outputs >> first + k & 1 for k in range(3))
        inh = outputs >> inh_bit & 1 if inhibit else 0
        position = TRUTH_TABLE.get((inh, c, b, a), -1)
        positions.append(position if position < width else -1)
    return positions


@given(
    st.integers(0, 2**300 - 1),
    st.integers(1, 64),
    st.integers(1, 8),
    st.sampled_from(["independent", "common"]),
    st.booleans(),
)
def test_bank_follows_the_wires_of_every_mux(outputs: int, count: int, width: int, selects: str, inhibit: bool) -> None:
    bank = MuxBankChips(count, width, selects, inhibit)
    assert bank.connect(outputs).tolist() == expected(outputs, count, width, selects, inhibit)


@pytest.mark.parametrize("selects", ["independent", "common"])
@pytest.mark.parametrize(("inhibit", "position"), [(True, -1), (False, 0)])
def test_released_control_lines_are_held_by_resistors(selects: str, inhibit: bool, position: int) -> None:
    assert MuxBankChips(5, 8, selects, inhibit).connect(None).tolist() == [position] * 5


@pytest.mark.parametrize("outputs", [None, 0, 0x7777])
def test_stuck_muxes_stay_where_they_are(outputs: int | None) -> None:
    bank = MuxBankChips(4, 8, "independent", inhibit=True)
    healthy = bank.connect(outputs)
    bank.stuck = {1: 5, 3: -1}
    positions = bank.connect(outputs)
    assert (positions[1], positions[3]) == (5, -1)
    np.testing.assert_array_equal(positions[[0, 2]], healthy[[0, 2]])
    bank.stuck.clear()
    np.testing.assert_array_equal(bank.connect(outputs), healthy)


@pytest.mark.parametrize(("width", "selects"), [(0, "common"), (9, "common"), (8, "daisy")])
def test_impossible_wiring_is_refused(width: int, selects: str) -> None:
    with pytest.raises(ConfigError, match="mux"):
        MuxBankChips(4, width, selects, inhibit=False)


@pytest.mark.parametrize("inhibit", [True, False])
@pytest.mark.parametrize("selects", ["independent", "common"])
@given(count=st.integers(1, 64), width=st.integers(1, 8), seed=st.integers(0, 2**32 - 1))
@settings(max_examples=30)
def test_what_the_driver_asks_for_gets_connected(
    selects: Literal["independent", "common"], inhibit: bool, count: int, width: int, seed: int
) -> None:
    draw = np.random.default_rng(seed)
    positions = draw.integers(0, width, count if selects == "independent" else 1) + np.zeros(count, int)
    if inhibit:
        positions[draw.random(count) < 0.5] = -1
    bits = MuxBank(count, width, selects, inhibit).encode(positions)
    outputs = sum(int(bit) << k for k, bit in enumerate(bits))
    np.testing.assert_array_equal(MuxBankChips(count, width, selects, inhibit).connect(outputs), positions)
