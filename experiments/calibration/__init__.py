"""Calibration runs: what they store, what they show, and their report."""
