"""TensorFlow Serving's requests and responses, independent of the transport.

In: parsed request messages. Out: response messages, or StatusError with the code that TensorFlow Serving returns.
`predict.py`, `status.py` (status and metadata), `warmup.py` (recorded requests); next: `grpc_server.py`.
"""
