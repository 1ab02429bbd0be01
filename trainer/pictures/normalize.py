"""Any picture of a digit -> MNIST's own preparation, as TensorFlow ops, so that it runs inside the served graph.

MNIST's digits are white on black, fitted into 20x20 keeping their aspect, and centred by mass in 28x28. A network that
learned from them answers well about a photograph only after the same has been done to it, and doing it here, once, means
that no client can do it otherwise.

    file -> decode -> look: the picture, reduced      -> paper, ink, its colour and which of the two is darker
                                                      -> pieces of ink -> which of them are the digit
                   -> read: the digit's part of the picture, in its own resolution -> ink -> pen -> fitted, centred

Lengths are in pixels of the image that a function works on, light and ink in 0 to 1.
"""

import tensorflow as tf

from serving.contract import IMAGE_SHAPE
from trainer.pictures.decode import decode
from trainer.pictures.extract import BOX, read_digit
from trainer.pictures.locate import find_digit


def normalize(encoded: tf.Tensor) -> tf.Tensor:
    """Bring picture files to MNIST's form.

    Args:
        encoded: string [N], the bytes of PNG, JPEG, BMP or GIF files.

    Returns:
        uint8 [N, 28, 28], 0 = paper, 255 = ink; all paper where no digit was found.

    Raises:
        InvalidArgumentError: when it runs; some cannot be decoded, or are too large. The message names them.
    """

    def one(encoded: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        pixels, problem = decode(encoded)
        return normalize_pixels(pixels), problem

    images, problems = tf.map_fn(
        one,
        encoded,
        fn_output_signature=(tf.TensorSpec(IMAGE_SHAPE, tf.uint8), tf.TensorSpec([], tf.string)),
        parallel_iterations=8,
    )
    bad = tf.where(problems != "")[:, 0]
    named = tf.strings.join(["picture ", tf.strings.as_string(bad), " ", tf.gather(problems, bad)])
    all_well = tf.debugging.Assert(tf.size(bad) == 0, [tf.strings.reduce_join(named, separator="; ")])
    with tf.control_dependencies([all_well]):
        return tf.identity(images)


def normalize_pixels(pixels: tf.Tensor) -> tf.Tensor:
    """uint8 [28, 28], 0 = paper, 255 = ink, of a picture uint8 [H, W, 3]."""
    return tf.cond(
        _is_prepared(pixels),
        lambda: tf.ensure_shape(pixels[..., 0], IMAGE_SHAPE),
        lambda: _prepare(pixels),
    )


def _is_prepared(pixels: tf.Tensor) -> tf.Tensor:
    """Whether the picture has MNIST's form already: 28x28 grey, mostly 0, within the box, its mass in the middle."""

    def looks_prepared() -> tf.Tensor:
        grey = pixels[..., 0]
        ink = tf.cast(grey, tf.float32)
        inked = grey > 0
        sides = [_extent(tf.reduce_any(inked, axis)) for axis in (1, 0)]
        mass = tf.reduce_sum(ink) + 1e-6
        away = [tf.abs(tf.reduce_sum(tf.reduce_sum(ink, a) * (tf.range(28.0) - 13.5)) / mass) for a in (1, 0)]
        return tf.reduce_all(
            [
                tf.reduce_all(pixels == pixels[..., :1]),
                tf.reduce_mean(tf.cast(inked, tf.float32)) < 0.6,
                tf.reduce_max(ink) > 127,
                tf.abs(tf.maximum(*sides) - BOX) <= 2,
                tf.maximum(*away) <= 1,
            ]
        )

    return tf.cond(tf.reduce_all(tf.shape(pixels)[:2] == IMAGE_SHAPE), looks_prepared, lambda: False)


def _extent(inked: tf.Tensor) -> tf.Tensor:
    """Pixels from the first to the last true one of bool [n]; 0 where there is none."""
    where = tf.where(inked)[:, 0]
    return tf.cond(tf.size(where) > 0, lambda: tf.cast(where[-1] - where[0] + 1, tf.int32), lambda: 0)


def _prepare(pixels: tf.Tensor) -> tf.Tensor:
    part, look = find_digit(_with_room(pixels))
    return tf.cond(look.score > 0, lambda: read_digit(part, look), lambda: tf.zeros(IMAGE_SHAPE, tf.uint8))


def _with_room(pixels: tf.Tensor) -> tf.Tensor:
    """A drawing or scan whose ink runs into its rim, with more of its paper around; other pictures as they are.

    At the rim of a photograph a shadow is more likely than ink, but not where the paper has one colour up to all corners,
    nor where most of the rim has exactly one.
    """
    sides = [tf.cast(side, tf.int32) for side in (pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1])]
    rim = tf.concat(sides, axis=0)
    paper = tf.sort(rim, axis=0)[tf.shape(rim)[0] // 2]

    def share(colours: tf.Tensor, tolerance: int) -> tf.Tensor:
        return tf.reduce_mean(tf.cast(tf.reduce_max(tf.abs(colours - paper), axis=1) <= tolerance, tf.float32))

    corners = tf.stack([sides[0][0], sides[0][-1], sides[1][0], sides[1][-1]])
    photographed = (share(corners, 8) == 1) & (share(rim, 8) > 0.5)
    # No camera gives a rim of one colour, so a corner may hold ink there; a whole side of it is a frame.
    drawn = (share(rim, 2) > 0.5) & tf.reduce_all([share(side, 2) > 0.1 for side in sides])
    inked = (photographed | drawn) & (share(rim, 64) < 1)

    def padded() -> tf.Tensor:
        room, colour = tf.reduce_max(tf.shape(pixels)) // 4, tf.cast(paper, tf.uint8)
        return tf.pad(pixels - colour, [[room, room], [room, room], [0, 0]]) + colour  # modulo 256

    return tf.cond(inked, padded, lambda: pixels)
