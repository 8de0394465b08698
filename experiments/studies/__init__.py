"""Studies: one experiment over a grid of one setting, with several seeds, in parallel processes."""
