"""Pages: what people see. Pure views (frozen dataclasses) in, HTML out; routes belong to the programs."""
