"""Procedures and fits that bind the simulator to a chip, its validation against the board, and the drift watch."""
