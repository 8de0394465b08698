"""Targets, procedures, fits and files that bind the simulator to a chip. Empty so far."""
