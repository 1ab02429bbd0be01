"""No command prints a line of TensorFlow's log, unless TF_CPP_MIN_LOG_LEVEL asks for it."""

import os
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).parents[1]


def run(code: str, folder: Path = REPOSITORY, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run Python code from the repository in a process whose environment does not mention TensorFlow's log."""
    inherited = {name: value for name, value in os.environ.items() if name != "TF_CPP_MIN_LOG_LEVEL"}
    paths = os.pathsep.join((str(folder), str(REPOSITORY)))
    environment = {**inherited, "PYTHONPATH": paths, "CUDA_VISIBLE_DEVICES": "-1", **environment}
    return subprocess.run(
        [sys.executable, "-c", code], cwd=REPOSITORY, env=environment, capture_output=True, text=True, timeout=120
    )


USE = "tf.config.list_physical_devices(); tf.reduce_sum(tf.ones(3)).numpy()"


def test_importing_and_using_tensorflow_prints_nothing_and_hidden_packages_can_be_imported_later() -> None:
    code = "import trainer, gc, sys, tensorflow as tf; print('keras' in sys.modules, 'sklearn' in sys.modules)"
    # The garbage collector works after the import, and leaves the import's objects alone.
    code += "; print(gc.isenabled(), gc.get_freeze_count() > 100_000)"
    code += "; import sklearn.metrics, matplotlib.figure, keras, trainer.run, tensorflow_datasets, os"
    done = run(f"{code}; {USE}; os.write(2, b'one '); print('two', file=sys.stderr)")
    assert (done.returncode, done.stdout, done.stderr) == (0, "True False\nTrue True\n", "one two\n"), (
        "other output goes through"
    )


def test_a_server_started_by_a_quiet_process_is_quiet_as_well_and_imports_no_keras() -> None:
    code = f"import serving.local_server.runtime, sys, tensorflow as tf; {USE}; print('keras' in sys.modules)"
    done = run(code, TF_CPP_MIN_LOG_LEVEL="3")
    assert (done.returncode, done.stdout, done.stderr) == (0, "False\n", "")


def test_the_environment_variable_brings_the_log_back() -> None:
    done = run(f"import trainer; import tensorflow as tf; {USE}", TF_CPP_MIN_LOG_LEVEL="0")
    assert done.returncode == 0
    assert "cpu_feature_guard" in done.stderr


def test_a_failed_import_prints_what_was_held_back(tmp_path: Path) -> None:
    package = tmp_path / "tensorflow"
    package.mkdir()
    (package / "__init__.py").write_text(
        "import os\nos.write(2, b'the reason\\n')\nraise ImportError('no such library')\n"
    )
    done = run("import trainer, tensorflow", tmp_path)
    assert done.returncode == 1
    assert done.stderr.startswith("the reason\n")
    assert "ImportError: no such library" in done.stderr


def test_installing_it_imports_no_tensorflow() -> None:
    done = run("import trainer, serving.local_server, sys; print('tensorflow' in sys.modules)")
    assert done.stdout == "False\n"
