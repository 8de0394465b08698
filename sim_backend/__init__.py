"""Simulator: cell physics, array solver, converter chain, and `SimBackend` that puts them behind `CrossbarBackend`.

One module per effect: `forming`, `noise`, `lines` (line and mux resistance), `mux` (phases), `dac`, `tia`, `adc`.
`conversion` and `statistical` are the two fidelities.
"""
