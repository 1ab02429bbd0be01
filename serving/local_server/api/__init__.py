"""TensorFlow Serving's requests and responses, the same for gRPC and REST.

In: parsed messages or JSON. Out: messages or JSON, or StatusError with the code that TensorFlow Serving returns.
`service.py` has every method; `predict.py`, `examples.py`, `status.py`, the `json_*` modules convert; `warmup.py` replays
recorded requests. Next: `versions/`, `model/`.
"""
