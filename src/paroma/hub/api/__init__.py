"""The hub's routes: parse, decide, call one function, render."""
