"""Array procedures: form, read, program and characterise whole arrays, recorded point by point.

Each procedure is a function of a `Bench` (a session whose every primitive is recorded), a mask and its settings, and
looks at the history of the cells to do what remains: a resumed run is the same code as a fresh one.
"""
