"""Every request is decided here: Cedar policies over fresh, typed facts. Start at `decide.py`."""
