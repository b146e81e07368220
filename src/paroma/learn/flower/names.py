"""What workers preload for Flower apps, by name. Importing this imports nothing else, so a program can start them first."""

from typing import Final

SERVE: Final = "paroma.learn.flower.server:serve"  # for the preload list of the hub
TRAIN: Final = "paroma.learn.flower.client:train"  # for the preload list of a site
ENVIRONMENT: Final = {"FLWR_TELEMETRY_ENABLED": "0", "FLWR_DISABLE_UPDATE_CHECK": "1", "FLWR_HOME": "/tmp/flwr"}  # noqa: S108 - inside the sandbox
