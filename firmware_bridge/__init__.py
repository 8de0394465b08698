"""The board: its profile, sequencer programs, `BoardBackend`, and the emulated board."""
