"""The client's side of the Flower app: unpack a message, do the job, pack the reply. Our node and Flower's run it."""

import logging

from flwr.app import Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from fl_client.failure import failed
from fl_client.job import Home, Job, texts
from fl_client.training.trainer import EvaluateResult, TrainResult
from fl_client.workplace import Workplace
from fl_common.messages.arrays import encode

log = logging.getLogger(__name__)

__all__ = ["Workplace", "app", "make_app"]


def make_app(workplace: Workplace, client: ClientApp | None = None) -> ClientApp:
    """Return `client`, by default a new one, with jobs done at `workplace`. Exceptions leave it: the node replies."""
    client = client or ClientApp()

    @client.train()
    def train(message: Message, context: Context) -> Message:
        result = workplace.train(job := Job.of(message, context))
        content = RecordDict({"arrays": encode(result.arrays), "metrics": metrics_of(result)})
        return Message(job.answer(content), reply_to=message)

    @client.evaluate()
    def evaluate(message: Message, context: Context) -> Message:
        result = workplace.evaluate(Job.of(message, context))
        return Message(RecordDict({"metrics": metrics_of(result)}), reply_to=message)

    @client.query()
    def others_lack(message: Message, context: Context) -> Message:
        names = list(texts(message, "others-lack"))
        own = workplace.own_names(names, Home.of(context.node_config))
        log.warning(
            "this client is left out: its data are not called as those of the others. Its names that they lack: %s",
            ", ".join(map(repr, own)) or "none; it lacks some of theirs, which the server's operator can name",
        )
        return Message(RecordDict(), reply_to=message)

    return client


def metrics_of(result: TrainResult | EvaluateResult) -> MetricRecord:
    """Return the reply's metrics: num-examples (the weight), the model's own, and the seconds it took."""
    return MetricRecord({"num-examples": result.examples, **result.metrics, "seconds": result.seconds})


class Named(ClientApp):
    """A module's `app`, pickled as its name: a worker of Ray's imports it once, and keeps its models."""

    def __reduce__(self) -> str:
        return "app"

    def __call__(self, message: Message, context: Context) -> Message:
        """Answer a message; Flower's own nodes would send the text of an exception to the server."""
        try:
            return super().__call__(message, context)
        except Exception as error:  # noqa: BLE001  SystemExit is how Flower's process is stopped
            return failed(message, error)


app = make_app(Workplace(), Named())
