"""The figures that we claim, measured: each against a peer or a bound, each with a defect planted that must be caught."""
