"""Liquid state machine: LIF neurons, spike counters and encoder over any `CrossbarBackend`, and the trained read-out.

Needs the extra `sim` (numba, torch); the rest of `hil` does not import this package.
"""
