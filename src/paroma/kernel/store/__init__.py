"""Durable records, in SQLite or PostgreSQL, through the same statements. Start at `database.Store`."""
