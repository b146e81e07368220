"""The hub: members, catalogue, applications and permits, runs, the federation log. Start at `parts.open_hub`, then `app.make_app`."""
