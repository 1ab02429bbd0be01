"""What the local server is made of, in the order in which a request meets it.

- `config.py`: every setting, its default and TF Serving's name for it
- `discovery.py`: base path -> the version directories that a policy wants
- `lifecycle.py`: the states of a version, and which step comes next
- `versions.py`: finds, loads, serves, drains and unloads them
- `servable.py`: one SavedModel, loaded and run through the v1 Session path
- `warmup.py`: recorded requests, replayed inside the load
- `rpc.py`: the gRPC server: services, health, reflection
- `predict.py`: PredictRequest -> checked inputs; outputs -> PredictResponse
- `tensors.py`: TensorProto <-> numpy, checked before anything is allocated
- `batching.py`: one queue, many small requests, few large runs
- `status.py`: GetModelMetadata and GetModelStatus
- `metrics.py`: a Prometheus page with TF Serving's metric names
- `errors.py`: a refusal: a gRPC status code and what was wrong
- `runtime.py`: the threads that all this lives in
"""
