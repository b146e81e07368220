"""The pages of scientist, committee and operator at the hub. Start at `run.render`."""
