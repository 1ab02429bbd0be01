"""Any picture of a digit -> MNIST's own preparation, as a TensorFlow graph inside the served model.

In: the bytes of picture files. Out: uint8 [N, 28, 28] images as MNIST has them. Start with `normalize.py`; it calls
`decode`, `extend`, `locate`, `extract` and `presence` in this order. The result goes to the model, in
`trainer/publishing/export.py`.
"""
