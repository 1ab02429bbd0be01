"""One SavedModel in memory.

In: a version's directory, then NumPy arrays. Out: NumPy arrays, computed through the v1 Session path.
`servable.py` loads and runs, `tensors.py` converts TensorProtos, `batching.py` joins requests into larger runs.
"""
