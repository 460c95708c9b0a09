"""A message that could not be answered: the whole error goes into the client's log, what is disclosed to the server."""

import logging

from flwr.app import Error, Message

from fl_common.errors import ParterreError
from fl_common.trust.disclosure import disclosed

log = logging.getLogger(__name__)

RAISED = 2  # Flower's ErrorCode.CLIENT_APP_RAISED_EXCEPTION
REST = "The client's log has the rest."


def failed(message: Message, error: BaseException) -> Message:
    """Return the answer to a message whose work ended in `error`."""
    told = disclosed(error)
    if isinstance(error, ParterreError):
        log.error("answering with an error: %s: %s", type(error).__name__, error)
    else:
        log.error("answering with an error: %s", told, exc_info=(type(error), error, error.__traceback__))
    return Message(Error(code=RAISED, reason=f"{told.removesuffix('.')}. {REST}"), reply_to=message)
