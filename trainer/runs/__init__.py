"""A run's folder and everything in it that must survive a crash.

In: a config, the training state, rows of metrics. Out: runs/<run>/ with config.json, checkpoints/, metrics.jsonl, train/
and validation/ (TensorBoard) and result.json, and lines on the terminal. Next: `trainer/run.py` uses them in order;
`trainer/training/` computes what they keep.
"""
