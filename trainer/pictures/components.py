"""Connected pieces of a mask, in TensorFlow ops: there is no op for it.

Every pixel of the mask points to one of its piece; neighbours hang the larger of their roots under the smaller, and all
paths are halved, until nothing changes: a number of rounds that grows with the logarithm of the longest piece
(Y. Zhang, A. Azad, Z. Hu, "FastSV", SIAM PP 2020).
"""

import tensorflow as tf


def connected_components(mask: tf.Tensor, where: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """The piece of each pixel: labels int32 [n], from 0, of the pixels that are true, and the number of pieces.

    Args:
        mask: bool [h, w].
        where: int64 [n, 2], `tf.where(mask)`; n may be 0.
    """
    count = tf.shape(where)[0]
    numbers = tf.range(count)
    # The number of each pixel of the mask, with a frame of pixels outside of it: -1.
    grid = tf.tensor_scatter_nd_update(tf.fill(tf.shape(mask) + 2, -1), where + 1, numbers)
    ends = []
    for down, right in ((0, 1), (1, -1), (1, 0), (1, 1)):
        neighbour = tf.gather_nd(grid, where + tf.constant([1 + down, 1 + right], tf.int64))
        ends.append(tf.where(neighbour < 0, numbers, neighbour))
    one, other = tf.tile(numbers, [4]), tf.concat(ends, axis=0)

    def join(parents: tf.Tensor, _: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        a, b = tf.gather(parents, one), tf.gather(parents, other)
        lower, higher = tf.minimum(a, b), tf.maximum(a, b)
        joined = tf.tensor_scatter_nd_min(parents, higher[:, tf.newaxis], lower)
        joined = tf.gather(joined, joined)
        joined = tf.gather(joined, joined)
        return joined, tf.reduce_any(joined != parents)

    roots, _ = tf.while_loop(lambda _, changed: changed, join, (numbers, tf.constant(True)))
    pieces, labels = tf.unique(roots)
    return labels, tf.size(pieces)
