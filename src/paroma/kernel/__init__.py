"""What every room stands on: ids, clock, randomness, errors, canonical JSON, settings, store, wire."""
