"""The training job: labelled images in, a checked, versioned SavedModel out.

Read along the data: data -> pipeline -> augment -> model -> distribute -> steps -> train -> evaluate -> publish.
`run` tells the whole story and `cli` is the way in.
"""

import os

# TensorFlow reads both when it is first imported, so nothing later than this file could set them. Without oneDNN some
# CPUs (those older than AVX-512 VNNI) run convolutions three to four times slower.
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
