"""May this happen, and who says so: keys, policy, logs, identity, members, permits, the channel."""
