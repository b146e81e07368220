"""heartapp: client."""

from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from heartapp.task import load_data, train

app = ClientApp()


@app.train()
def train_fn(msg: Message, context: Context):
    coef, intercept = msg.content["arrays"].to_numpy_ndarrays()
    x, y = load_data(context.node_config["data"])
    lr, epochs = context.run_config["learning-rate"], context.run_config["local-epochs"]
    coef, intercept, loss = train((coef, intercept), (x, y), lr, epochs)
    content = RecordDict(
        {
            "arrays": ArrayRecord([coef, intercept]),
            "metrics": MetricRecord({"train_loss": loss, "num-examples": len(y)}),
        }
    )
    return Message(content=content, reply_to=msg)
