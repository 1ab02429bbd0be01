"""What the trainer promises and the client relies on: names and shapes, and nothing else.

The trainer and the serving side agree on two things: the layout of the folders on disk, and this file. It imports
nothing, so that both sides may import it at no cost.
"""

MODEL_NAME = "digits"
"""The served model's name, and the folder under `models/` whose numeric children are its versions."""

SIGNATURE = "serving_default"
"""The signature a request gets when it names none."""

PICTURES = "pictures"
"""The signature that takes pictures of any size as their files are."""

IMAGE_SHAPE = (28, 28)
"""Height and width of an image in pixels: uint8, 0 = paper, 255 = ink."""

CLASSES = 10
"""The digits 0 to 9."""

IMAGES = "images"
"""Input of `SIGNATURE`: uint8 [N, 28, 28]."""

ENCODED = "encoded"
"""Input of `PICTURES`: string [N]; the bytes of PNG, JPEG, BMP or GIF files, dark on light or light on dark."""

MAX_PICTURE_BYTES = 16 * 1024 * 1024
"""Size of the largest picture file; a telephone's photograph has 2 to 12 MB."""

PROBLEM = "problem"
"""Output of `PICTURES` only: string [N]; why a picture cannot be used, such as "cannot be decoded"; empty if it can. The
`DIGIT` of a picture with a problem is -1, its other outputs are 0. Versions published earlier lack this output."""

NAMED_PICTURE = r"picture (\d+) (.+?)(?=; picture \d|\]|$)"
"""How a version without `PROBLEM` names a picture that cannot be used in the message of its INVALID_ARGUMENT: index in the
request, from 0, and the problem, as in "picture 3 cannot be decoded"."""

NORMALIZED = "normalized"
"""Output of `PICTURES` only: uint8 [N, 28, 28]; what the network saw of each picture."""

FOUND = "found"
"""Output of `PICTURES` only: int64 [N]; how many digits stand side by side, 0 for none, of which `DIGIT` is the prediction
for one. It is an estimate. Versions published earlier lack this output."""

BOX = "box"
"""Output of `PICTURES` only: float32 [N, 4]; top, left, bottom and right of the digit that was read, as shares of the
picture's height and width; 0 if `FOUND` is 0. Versions published earlier lack this output."""

DOUBT = "doubt"
"""Output of `PICTURES` only: float32 [N]; how probable it is that the image `NORMALIZED` does not show the digit that is
written, but the edge of a shadow, for example, or only a part of the digit. Versions published earlier lack it."""

PROBABILITIES = "probabilities"
"""Output: float32 [N, 10]; each row sums to one, or is 0 for a picture with a `PROBLEM`. For `PICTURES`, the probabilities
of the image `NORMALIZED` have the weight 1 - `DOUBT`, and ten equal ones the weight `DOUBT`."""

DIGIT = "digit"
"""Output: int64 [N]; the most probable digit; -1 for a picture with a `PROBLEM`."""

CONFIDENCE = "confidence"
"""Output: float32 [N]; the probability of `DIGIT`."""
