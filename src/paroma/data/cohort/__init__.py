"""From records in the vault to a table of the patients that may be used. Start at `assemble.assemble`."""
