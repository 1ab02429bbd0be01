"""A trained model and its evaluation -> a new version in the folder that TensorFlow Serving polls.

    publish.py (gate) -> export.py (SavedModel) -> verify_export.py (fresh process) -> versions.py (one rename)

In: the model, its `Evaluation` and the test split. Out: `<models>/<name>/<version>/`. Next: `serving/`, which loads it.
"""
