"""Sequencer, board profile, BoardBackend, emulator and links. Empty so far."""
