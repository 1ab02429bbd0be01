"""Generate damaged and hostile picture files from a seed."""

import io
import struct
import zlib
from collections.abc import Iterator

import numpy as np
from PIL import Image

MODES = {
    "PNG": ("1", "L", "P", "LA", "RGB", "RGBA", "I;16"),
    "JPEG": ("L", "RGB", "CMYK"),
    "BMP": ("1", "L", "P", "RGB"),
    "GIF": ("L", "P"),
}


def hostile_files(seed: int) -> Iterator[bytes]:
    """Yield files without end: intact, cut, with changed bytes, with false sizes, animated, and no pictures at all."""
    random = np.random.default_rng(seed)
    while True:
        content = _picture(random)
        damage = random.integers(0, 9)
        if damage == 1:
            content = content[: random.integers(0, len(content))]
        elif damage == 2:
            content = _flipped(content, random, int(random.integers(1, 30)))
        elif damage == 3:
            content = content + random.bytes(int(random.integers(1, 1000)))
        elif damage == 4:
            content = random.choice([b"", b"\0", b"a digit", "siebzehn \u2013 17".encode(), random.bytes(300)])
        elif damage == 5:
            content = _false_size(content, random)
        elif damage == 6:
            content = _animated(random)
        elif damage == 7:
            content = _png_bomb(int(random.integers(1, 60_000)), int(random.integers(1, 60_000)))
        elif damage == 8:
            content = _flipped(content[:64], random, 3) + content[64:]
        yield content


def _picture(random: np.random.Generator) -> bytes:
    kind = str(random.choice(list(MODES)))
    mode = str(random.choice(MODES[kind]))
    height, width = (int(side) for side in random.choice([1, 2, 7, 28, 60, 200], 2))
    if mode == "I;16":
        image = Image.fromarray(random.integers(0, 65536, (height, width)).astype(np.uint16))
    else:
        image = Image.fromarray(random.integers(0, 256, (height, width, 3), np.uint8)).convert(mode)
    content = io.BytesIO()
    image.save(content, kind)
    return content.getvalue()


def _flipped(content: bytes, random: np.random.Generator, count: int) -> bytes:
    changed = bytearray(content)
    for position in random.integers(0, len(changed), count):
        changed[position] = random.integers(0, 256)
    return bytes(changed)


def _false_size(content: bytes, random: np.random.Generator) -> bytes:
    size = int(random.choice([0, 1, 3, 255, 30_000, 65_535, 2**31 - 1, 2**32 - 1]))
    if content[:4] == b"\x89PNG":
        header = content[12:16] + struct.pack(">I", size) + content[20:29]
        return content[:12] + header + struct.pack(">I", zlib.crc32(header)) + content[33:]
    at = {b"BM": 18, b"GI": 6}.get(content[:2])
    if at is None:
        at = max(content.find(b"\xff\xc0"), 0) + 5
        return content[:at] + struct.pack(">H", size % 65_536) + content[at + 2 :]
    packed = struct.pack("<I", size) if at == 18 else struct.pack("<H", size % 65_536)
    return content[:at] + packed + content[at + len(packed) :]


def _animated(random: np.random.Generator) -> bytes:
    frames = [Image.fromarray(random.integers(0, 256, (40, 40), np.uint8)) for _ in range(4)]
    content = io.BytesIO()
    frames[0].save(content, "GIF", save_all=True, append_images=frames[1:])
    return content.getvalue()


def _png_bomb(height: int, width: int) -> bytes:
    """A valid header of a huge picture, and hardly any content."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 6, 0, 0, 0)
    content = zlib.compress(bytes(100_000))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", content) + chunk(b"IEND", b"")
