"""Real peers, faults, the simulation and the demo federation: what tests, benches and the demo share."""
