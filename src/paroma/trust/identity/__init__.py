"""People and workloads:

who is asking. Start at `tokens`; `dpop` binds a token to a key, `people` are persons and browsers.
"""
