"""The training job: labelled images in, a checked, versioned SavedModel out.

Read the packages in the order of the data: data, training, evaluation, pictures, publishing. `run` calls
them; `pictures` is part of the exported model and reads folders of pictures. `cli` is the command line.
"""

import os

import quiet_tensorflow

# TensorFlow reads this when it is first imported. Without oneDNN, CPUs older than AVX-512 VNNI run convolutions three to
# four times slower.
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
# Keras reads this when it is first imported; it wins over the user's Keras config.
os.environ["KERAS_BACKEND"] = "tensorflow"
quiet_tensorflow.install()
