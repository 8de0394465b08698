"""Chip drivers of the board. Empty so far: they come with the board's emulator."""
