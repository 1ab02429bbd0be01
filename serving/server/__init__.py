"""What the local server is made of, in the order a request meets it.

config.py              every setting, its default and TF Serving's name for it
discovery.py           base path -> the version directories that a policy wants
versions.py            load, warm up, serve, drain, unload: the life of each version
servable.py            one SavedModel, loaded and run through the v1 Session path
warmup.py              assets.extra/tf_serving_warmup_requests, replayed inside the load
tensors.py             TensorProto <-> numpy, checked before anything is allocated
batching.py            one queue, many small requests, few large runs
predict.py             PredictRequest -> PredictResponse
status.py              GetModelMetadata and GetModelStatus
rpc.py                 the gRPC server: services, health, reflection
metrics.py             Prometheus page, with TF Serving's metric names
errors.py              a refusal: a gRPC status code and what was wrong
"""
