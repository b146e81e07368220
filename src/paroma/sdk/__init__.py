"""What a data scientist uses in a notebook. Loads no numpy."""
