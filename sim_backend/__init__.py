"""Simulator: cell physics, array solver, converter chain, and `SimBackend` that puts them behind `CrossbarBackend`.

One module per effect: `forming`, `noise`, `lines` (line and mux resistance), `mux` (phases), `dac`, `tia`, `adc`.
`conversion` and `statistical` are the two fidelities; `scheduled` and `scheduled_statistical` are the same for muxes
that connect only what a phase drives. `calibrated` makes a chip of what was measured of a board.
"""
