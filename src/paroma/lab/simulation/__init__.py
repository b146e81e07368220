"""A whole federation in one process, on virtual time: the same seed gives the same course, byte for byte."""
