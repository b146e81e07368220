"""Flower apps, unchanged, under our protection.

`fab` (the bundle), `messages` (what goes in and out of a worker), `rule` (the mean that everybody recomputes),
`contribution` (an app as a question of a run) and `session` (the hub's side of a ServerApp) import no flwr; `app`,
`client` and `server` do, and run only inside workers.
"""
