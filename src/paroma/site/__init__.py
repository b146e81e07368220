"""The site: vault, consents, portal, officer's interface, local decision, worker. Start at `parts.open_site`, then `app`."""
