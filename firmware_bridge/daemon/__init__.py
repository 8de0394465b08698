"""The daemon beside the board: one backend, one writer, many readers."""
