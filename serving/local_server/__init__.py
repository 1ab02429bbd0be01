"""TensorFlow Serving's API for one machine: laptops, tests and demos.

In: folders of SavedModel versions, and requests over gRPC or REST. Out: TensorFlow Serving's responses, status codes and
metrics. Start at `command.py` (the command line) or `server.py` (`LocalServer`, for tests); `runtime.py` starts the
modules that handle a request: `grpc_server.py` or `rest_server.py`, `api/`, `versions/`, `model/`.
"""

import quiet_tensorflow

quiet_tensorflow.install(hidden=("keras",))
