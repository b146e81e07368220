"""Who may be used for what, now. Start at `evaluate.evaluate`; `state` keeps it, `bits` hands it to the workers."""
