"""Files of a data set -> three disjoint, verified splits of labelled images.

In: a data set's name and folder. Out: `Splits` of uint8 images [N, 28, 28] and labels; damaged data is rejected by name.
Next: `trainer/training/`, which draws batches from the training split.
"""
