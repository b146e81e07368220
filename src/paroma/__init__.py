"""Hospitals compute together: no record leaves, every consent is live, every use is in a log nobody can rewrite."""

__version__ = "0.1.0"
