"""Members, their officers, and how a hospital becomes one. Start at `invitations`, then `join`, then `members`."""
