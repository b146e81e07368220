"""What workers preload for the platform's algorithms, by name. Importing this imports nothing else."""

from typing import Final

COMPUTE: Final = "paroma.learn.algorithms.worker:compute"  # for the preload list of a site
