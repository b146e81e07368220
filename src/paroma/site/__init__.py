"""The site: vault, consents, patient portal, officer's interface, the local decision, the worker. Start at `parts.open_site`, then `app`."""
