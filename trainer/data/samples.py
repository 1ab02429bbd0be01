"""Test digits as picture files, to try a served model with."""

from pathlib import Path

from PIL import Image

from trainer.data.split import Split


def write_samples(split: Split, folder: Path, count: int) -> list[Path]:
    """Write the first `count` images as 28x28 PNG files named `<position>-is-a-<label>.png`; return their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for position, (image, label) in enumerate(zip(split.images[:count], split.labels[:count], strict=True)):
        paths.append(folder / f"{position:03}-is-a-{label}.png")
        Image.fromarray(image).save(paths[-1])
    return paths
