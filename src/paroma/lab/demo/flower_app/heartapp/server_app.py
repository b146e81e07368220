"""heartapp: server."""

import numpy as np
from flwr.app import ArrayRecord, Context
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    features = context.run_config["num-features"]
    arrays = ArrayRecord([np.zeros(features, np.float32), np.zeros(1, np.float32)])
    strategy = FedAvg(fraction_train=1.0)
    result = strategy.start(grid=grid, initial_arrays=arrays, num_rounds=context.run_config["num-server-rounds"])
    np.savez("final_model.npz", *result.arrays.to_numpy_ndarrays())
