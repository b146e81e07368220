"""Runs: many questions under one permit, each answered by one secure sum. `messages` has every wire type.

`site` and `hub` are two pure machines, (state, event) -> (state, effects); the programs write the state and only then
act.
"""
