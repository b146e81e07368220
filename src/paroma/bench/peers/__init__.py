"""Other systems, each in an environment of its own: how to install one, and the programs that run inside it."""
