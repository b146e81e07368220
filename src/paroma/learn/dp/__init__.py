"""Differential privacy: rows clipped to an integer grid, exact discrete Gaussian noise, the accountant of both."""
