"""The steps of a run, in the order in which `trainer/run.py` takes them.

    train.py (splits, a trained model) -> evaluate.py (Candidate) -> publish.py (gate, new version, report)

In: a config. Out: a published version and the files in the run's folder. The steps
import TensorFlow: `trainer/run.py` imports them only when it needs them.
"""
