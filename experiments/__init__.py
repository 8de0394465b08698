"""Experiments: forming, programming, reading, sweeps and the liquid state machine, each handed a backend."""
