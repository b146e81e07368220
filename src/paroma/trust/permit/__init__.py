"""What was asked for, what was permitted, and who signed it. Start at `permit.py`."""
