"""Which versions of which models are served.

In: base paths, version policies, labels, and the ModelSpec of a request. Out: a lease on a loaded version, and every
version's state. `models.py` selects, `manager.py` loads and unloads by the rules of `discovery.py` and `lifecycle.py`,
`model_config.py` reads ModelServerConfig. Next: `model/`.
"""
