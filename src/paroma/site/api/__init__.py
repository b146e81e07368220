"""The site's routes: parse, decide, call one function, render."""
