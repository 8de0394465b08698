"""Trained baselines that the random network is compared with: the same data and protocols, every weight trained.

`supervised` classifies, `zero_shot` retrieves across two kinds of input. docs/explanation/baselines.md says what is
taken from the paper and what is ours.
"""
