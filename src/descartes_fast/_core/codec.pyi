from typing import Final

from typing_extensions import Buffer

from .messages import ZmqMessage

MAX_MESSAGE_SIZE: Final = 10485760
ZMQ_PROTOCOL_VERSION: Final = "1.0.0"
DEFAULT_TIMEOUT_SECS: Final = 30

def validate_message_size(size: int, /) -> None: ...
def serialize_zmq_message(message: ZmqMessage, /, prefix: bytes = b"") -> bytes: ...
def deserialize_zmq_message(data: Buffer, /) -> ZmqMessage: ...
