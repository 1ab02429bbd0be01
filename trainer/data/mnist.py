"""MNIST through its tensorflow-datasets builder.

The builder downloads the four original files, or takes them from `<data_dir>/downloads/manual/` where there is no network,
and checks their SHA-256. The prepared data set is compared with MNIST's fingerprint each time it is read.
"""

import errno
import fcntl
import sys
import urllib.error
import urllib.request
from pathlib import Path

import numpy as np

from trainer.data import idx
from trainer.data.split import MNIST_FINGERPRINTS, DataError, Split
from trainer.errors import ExitCode

BUILDER = "mnist:3.0.1"
LOCK_FILE = ".prepare.lock"

SOURCE = "https://storage.googleapis.com/cvdf-datasets/mnist/"
"""Where the builder downloads from."""

FILES = [f"{name}.gz" for names in idx.FILES.values() for name in names]

REACH_SECONDS = 5.0
"""How long to wait for an answer before the builder starts, which retries for minutes and prints every attempt."""


class DownloadError(DataError):
    """MNIST could not be downloaded. The network of a new pod may need seconds, so a retry may help."""

    exit_code = ExitCode.IO


def prepare_mnist(data_dir: Path) -> None:
    """Prepare MNIST in `data_dir` if it is missing there (half a minute, 30 MB).

    Raises:
        DownloadError: the files could not be downloaded.
        DataError: the files are not MNIST's.
    """
    import tensorflow_datasets as tfds

    # Without a terminal the builder would print a progress bar for every example.
    tfds.display_progress_bar(sys.stderr.isatty())
    builder = tfds.builder(BUILDER, data_dir=str(data_dir))
    manual = data_dir / "downloads" / "manual"
    try:
        if not Path(builder.data_path).exists():
            if not all((manual / name).is_file() for name in FILES):
                _refuse_offline(data_dir)
            data_dir.mkdir(parents=True, exist_ok=True)
            # Workers of one run prepare the same folder at the same time, and the builder fails for all but the first.
            # The operating system releases the lock when the process ends.
            with (data_dir / LOCK_FILE).open("w") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                builder.download_and_prepare()
    except tfds.download.download_manager.NonMatchingChecksumError as error:
        raise DataError(f"{manual}: a file is not MNIST's: {_one_line(error)}") from error
    except (OSError, EOFError, tfds.download.DownloadError) as error:
        if getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS):
            raise
        raise _not_available(data_dir, error) from error


def read_mnist(data_dir: Path) -> tuple[Split, Split]:
    """Read MNIST's training and test split; prepare them first if they are missing.

    Raises:
        DataError: MNIST could not be prepared, or the prepared files are damaged.
    """
    import tensorflow as tf
    import tensorflow_datasets as tfds

    prepare_mnist(data_dir)
    builder = tfds.builder(BUILDER, data_dir=str(data_dir))

    def read(split: str) -> Split:
        try:
            examples = tfds.as_numpy(builder.as_dataset(split=split, batch_size=-1))
        except (tf.errors.OpError, OSError) as error:
            raise DataError(f"{builder.data_path}: the {split} split is damaged: {_one_line(error)}") from error
        result = Split(np.ascontiguousarray(examples["image"][..., 0]), examples["label"].astype(np.uint8))
        if result.fingerprint != MNIST_FINGERPRINTS[split]:
            raise DataError(
                f"{builder.data_path}: the {split} split is not MNIST's ({len(result)} examples); "
                "delete that folder and prepare it again"
            )
        return result

    return read("train"), read("test")


def _refuse_offline(data_dir: Path) -> None:
    """Refuse to start a download that cannot succeed.

    Raises:
        DownloadError: the host does not answer; the message says how to train without a network.
    """
    request = urllib.request.Request(SOURCE + FILES[-1], method="HEAD")
    try:
        urllib.request.urlopen(request, timeout=REACH_SECONDS).close()
    except urllib.error.HTTPError:
        pass  # The host answers; the builder reports what it cannot get.
    except OSError as error:
        raise _not_available(data_dir, getattr(error, "reason", error)) from error


def _not_available(data_dir: Path, reason: object) -> DownloadError:
    return DownloadError(
        f"MNIST is not prepared in {data_dir} and could not be downloaded ({_one_line(reason)}). Without a network, put "
        f"{', '.join(FILES[:-1])} and {FILES[-1]} into {data_dir / 'downloads' / 'manual'}, or train on the embedded "
        "digits: --preset quickstart"
    )


def _one_line(error: object) -> str:
    return " ".join(str(error).split())
