"""The training job: labelled images in, a checked, versioned SavedModel out.

Read the packages in the order of the data: data, training, evaluation, pictures, publishing. `run` calls them in that
order; `cli` is the command line.
"""

import os

# TensorFlow reads both when it is first imported, so nothing later than this file could set them. Without oneDNN some
# CPUs (those older than AVX-512 VNNI) run convolutions three to four times slower.
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
