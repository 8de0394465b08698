"""Links between a host and the daemon beside the board: whole messages over TCP or a serial line."""
