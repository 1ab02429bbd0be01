"""`python -m serving` against servers on loopback: its output, its exit status, and what it must not import."""

import base64
import io
import json
import os
import re
import subprocess
import sys
import threading

import grpc
import numpy as np
import pytest
from PIL import Image
from tensorflow_serving.apis import get_model_metadata_pb2

from serving import contract
from serving.cli import main
from serving.contract import MAX_PICTURE_BYTES
from tests.serving.scripted_server import (
    NO_DIGIT,
    NOT_A_PICTURE,
    TWO_DIGITS,
    earlier_response,
    images_of,
    predict_response,
    scripted_server,
    status_response,
)


@pytest.fixture
def files(tmp_path):
    """A folder with one.npy (predicted 3), two.npy (5 and 8) and four.png (4)."""
    np.save(tmp_path / "one.npy", images_of(3))
    np.save(tmp_path / "two.npy", images_of(5, 8))
    (tmp_path / "four.png").write_bytes(b"\x04 as it is")
    return tmp_path


def _reject(code, message):
    return lambda _, context: context.abort(code, message)


def test_predict_prints_a_line_per_image(files, capsys):
    with scripted_server() as target:
        status = main(["predict", str(files / "one.npy"), str(files / "two.npy"), "--target", target])
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert status == 0
    assert lines == [
        ["file", "digit", "confidence", "version"],
        [str(files / "one.npy"), "3", "91.0", "%", "1"],
        [f"{files / 'two.npy'}[0]", "5", "91.0", "%", "1"],
        [f"{files / 'two.npy'}[1]", "8", "91.0", "%", "1"],
    ]


def test_predict_prints_json_with_everything(files, capsys):
    with scripted_server() as target:
        status = main(["predict", str(files / "two.npy"), "--json", "--target", target])
    first, second = json.loads(capsys.readouterr().out)
    assert status == 0
    assert (first["file"], first["index"], first["digit"], first["version"]) == (str(files / "two.npy"), 0, 5, 1)
    assert (second["index"], second["digit"]) == (1, 8)
    assert second["confidence"] == pytest.approx(max(second["probabilities"]))


def test_predict_sends_a_picture_as_it_is(files):
    seen = []
    with scripted_server(predict=lambda request, _: seen.append(request) or predict_response(request)) as target:
        assert main(["predict", str(files / "four.png"), "--target", target]) == 0
    (request,) = seen
    assert list(request.inputs[contract.ENCODED].string_val) == [(files / "four.png").read_bytes()]


def test_pictures_and_arrays_are_predicted_in_the_order_given(files, capsys):
    names = [str(files / name) for name in ("four.png", "two.npy", "four.png", "one.npy")]
    with scripted_server() as target:
        assert main(["predict", *names, "--json", "--target", target]) == 0
    predictions = json.loads(capsys.readouterr().out)
    assert [(one["file"], one["index"], one["digit"]) for one in predictions] == [
        (names[0], 0, 4),
        (names[1], 0, 5),
        (names[1], 1, 8),
        (names[2], 0, 4),
        (names[3], 0, 3),
    ]


@pytest.mark.parametrize(("min_confidence", "digit", "sure"), [("0.9", "4", True), ("0.92", "not sure (4?)", False)])
def test_predict_is_not_sure_below_min_confidence(files, capsys, min_confidence, digit, sure):
    command = ["predict", str(files / "four.png"), "--min-confidence", min_confidence]
    with scripted_server() as target:
        assert main([*command, "--target", target]) == 0
        table = capsys.readouterr().out
        assert main([*command, "--json", "--target", target]) == 0
    assert f"  {digit}  " in table.splitlines()[1]
    assert json.loads(capsys.readouterr().out)[0]["sure"] is sure


def test_predict_says_where_there_is_no_digit_and_where_there_are_several(files, capsys):
    (files / "blank.png").write_bytes(NO_DIGIT)
    (files / "two.png").write_bytes(TWO_DIGITS)
    names = [str(files / name) for name in ("blank.png", "two.png", "four.png", "one.npy")]
    with scripted_server() as target:
        assert main(["predict", *names, "--target", target]) == 0
        lines = capsys.readouterr().out.splitlines()
        assert main(["predict", *names, "--json", "--target", target]) == 0
    assert "  none found  " in lines[1]
    assert "  2 digits (5?)  " in lines[2]
    predictions = json.loads(capsys.readouterr().out)
    assert [(one["found"], one["sure"]) for one in predictions] == [(0, False), (2, False), (1, True), (None, True)]


def test_a_picture_that_the_model_cannot_use_is_named_and_the_others_are_predicted(files, capsys):
    (files / "bad.png").write_bytes(NOT_A_PICTURE)
    names = [str(files / name) for name in ("four.png", "bad.png", "one.npy")]
    error = f"error: {files / 'bad.png'}: this picture cannot be decoded; expected PNG\n"
    with scripted_server() as target:
        assert main(["predict", *names, "--target", target]) == 2
        table = capsys.readouterr()
        assert main(["predict", *names, "--json", "--target", target]) == 2
        as_json = capsys.readouterr()
        assert main(["predict", str(files / "bad.png"), "--target", target]) == 2
        alone = capsys.readouterr()
    assert [line.split()[:2] for line in table.out.splitlines()[1:]] == [[names[0], "4"], [names[2], "3"]]
    assert [(one["digit"], one["problem"]) for one in json.loads(as_json.out)] == [
        (4, None),
        (None, "cannot be decoded; expected PNG"),
        (3, None),
    ]
    assert alone.out == ""
    assert table.err == as_json.err == alone.err == error


def test_a_version_without_problems_cannot_predict_the_others(files, capsys):
    (files / "bad.png").write_bytes(NOT_A_PICTURE)
    with scripted_server(predict=earlier_response) as target:
        names = [str(files / name) for name in ("four.png", "bad.png")]
        assert main(["predict", *names, "--target", target]) == 2
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err == f"error: {files / 'bad.png'}: this picture cannot be decoded; expected PNG\n"


def test_show_writes_one_page_with_each_picture_beside_the_networks_input(files, capsys):
    (files / "<b>.png").write_bytes(b"\x07<script>")
    names = [str(files / name) for name in ("four.png", "<b>.png", "two.npy")]
    with scripted_server() as target:
        assert main(["predict", *names, "--show", str(files / "seen.html"), "--target", target]) == 0
    assert f"wrote {files / 'seen.html'}" in capsys.readouterr().err
    page = (files / "seen.html").read_text()
    images = [base64.b64decode(content) for content in re.findall(r'src="data:image/png;base64,([^"]*)"', page)]
    assert [images[0], images[2]] == [(files / "four.png").read_bytes(), (files / "<b>.png").read_bytes()]
    seen = [np.asarray(Image.open(io.BytesIO(image))) for image in (images[1], *images[3:])]
    assert [(image.shape, int(image.min()), int(image.max())) for image in seen] == [
        ((28, 28), digit, digit) for digit in (4, 7, 5, 8)
    ]
    assert "<script" not in page
    assert "&lt;b&gt;.png" in page
    assert "http" not in page


def test_show_never_overwrites_a_picture(files, capsys):
    picture = (files / "four.png").read_bytes()
    with pytest.raises(SystemExit) as exited:
        main(["predict", "--show", str(files / "four.png"), str(files / "two.npy")])
    assert exited.value.code == 2
    assert "must end in .html" in capsys.readouterr().err
    assert (files / "four.png").read_bytes() == picture


def test_predict_reads_every_file_before_it_sends_a_request(files, capsys):
    (files / "bad.npy").write_bytes(b"\x93NUMPY, and no more")
    received = []
    with scripted_server(predict=lambda request, _: received.append(request) or predict_response(request)) as target:
        status = main(["predict", str(files / "four.png"), str(files / "bad.npy"), "--target", target])
    assert status == 2
    assert not received
    output = capsys.readouterr()
    assert "bad.npy: " in output.err
    assert output.out == ""


def test_predict_does_not_hold_all_pictures_in_memory(tmp_path):
    """It held all files at once: 900 MB for 40 of 15 MiB."""
    paths = [tmp_path / f"{number}.png" for number in range(30)]
    for path in paths:
        with path.open("wb") as file:
            file.write(b"\x07")
            file.truncate(MAX_PICTURE_BYTES - 2**20)  # a hole: it takes no space
    code = (
        "import sys\n"
        "from serving.cli import main\n"
        "assert main(sys.argv[1:]) == 0\n"
        # ru_maxrss would include what the parent held when it started this process.
        "print(next(line for line in open('/proc/self/status') if line.startswith('VmHWM')).split()[1])\n"
    )
    with scripted_server(max_message_bytes=-1) as target:
        command = [sys.executable, "-c", code, "predict", *map(str, paths), "--target", target]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    *lines, peak_kib = done.stdout.splitlines()
    assert [line.split()[1] for line in lines] == ["digit", *30 * ["7"]]
    assert int(peak_kib) * 1024 < 30 * (MAX_PICTURE_BYTES - 2**20)


@pytest.mark.parametrize("name", ["-", "/dev/stdin"])
def test_a_picture_from_a_pipe_is_read_once_and_shown(files, name):
    with scripted_server() as target:
        page = files / "seen.html"
        command = [sys.executable, "-m", "serving", "predict", name, "--show", str(page), "--target", target]
        done = subprocess.run(command, input=b"\x06 as it is", capture_output=True, timeout=60, check=True)
    assert done.stdout.split()[4:6] == [name.encode(), b"6"]
    assert base64.b64encode(b"\x06 as it is").decode() in page.read_text()


def test_a_missing_file_is_named(capsys):
    assert main(["predict", "missing.png"]) == 2
    assert "missing.png" in capsys.readouterr().err


def test_a_failed_request_prints_the_reason_and_no_prediction(files, capsys):
    reject = _reject(grpc.StatusCode.NOT_FOUND, "Servable not found")
    with scripted_server(predict=reject) as target:
        assert main(["predict", str(files / "one.npy"), "--target", target]) == 1
    output = capsys.readouterr()
    assert output.out == ""
    assert "NOT_FOUND: Servable not found" in output.err


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["predict"],
        ["frobnicate"],
        ["predict", "a.png", "--min", "0.5"],
        ["predict", "a.png", "--version", "1", "--label", "stable"],
        ["predict", "a.png", "--timeout", "0"],
        ["predict", "a.png", "--timeout", "nan"],
        ["predict", "a.png", "--header", "authorization"],
        ["predict", "a.png", "--header", "Authorization=x"],
        ["wait", "--timeout", "inf"],
        ["predict", "a.png", "--min-confidence", "60"],
        ["predict", "a.png", "--min-confidence", "high"],
        ["predict", "a.png", "--certificate-file", "client.pem"],
        ["wait", "--label", "stable"],
        ["web", "--port", "65536"],
        ["web", "--json"],
        ["bench", "--batch", "0"],
        ["bench", "--rate", "inf"],
        ["bench", "--rate", "0"],
        ["bench", "--seconds", "nan"],
        ["bench", "--warmup", "inf"],
        ["bench", "--warmup", "-1"],
        ["bench", "--concurrency", "0"],
        ["bench", "--attempts", "6"],
        ["bench", "--concurrency", "1", "--rate", "5"],
    ],
)
def test_wrong_usage_returns_2_before_anything_is_sent(arguments, capsys):
    with pytest.raises(SystemExit) as exited:
        main(arguments)
    assert exited.value.code == 2
    assert "usage:" in capsys.readouterr().err


def test_a_url_as_target_returns_2(capsys):
    assert main(["status", "--target", "http://localhost:8501"]) == 2
    assert "HOST:PORT" in capsys.readouterr().err


def test_status_prints_each_version(capsys):
    response = status_response((1, "END"), (2, "AVAILABLE"))
    with scripted_server(status=lambda *_: response) as target:
        assert main(["status", "--target", target]) == 0
        table = capsys.readouterr().out
        assert main(["status", "--json", "--target", target]) == 0
    assert [line.split() for line in table.splitlines()[1:]] == [["2", "AVAILABLE", "OK"], ["1", "END", "OK"]]
    assert [one["version"] for one in json.loads(capsys.readouterr().out)] == [2, 1]


def test_metadata_prints_each_tensor(capsys):
    def metadata(*_):
        signatures, response = (
            get_model_metadata_pb2.SignatureDefMap(),
            get_model_metadata_pb2.GetModelMetadataResponse(),
        )
        tensor = signatures.signature_def["serving_default"].inputs["images"]
        tensor.dtype = 4
        for size in (-1, 28, 28):
            tensor.tensor_shape.dim.add(size=size)
        response.model_spec.name, response.model_spec.version.value = "digits", 9
        response.metadata["signature_def"].Pack(signatures)
        return response

    with scripted_server(metadata=metadata) as target:
        assert main(["metadata", "--target", target]) == 0
        table = capsys.readouterr().out
        assert main(["metadata", "--json", "--target", target]) == 0
    assert table.splitlines()[0] == "digits version 9"
    assert table.splitlines()[2].split() == ["serving_default", "input", "images", "DT_UINT8", "[N,", "28,", "28]"]
    found = json.loads(capsys.readouterr().out)
    assert found["signatures"]["serving_default"]["inputs"]["images"] == {"dtype": "DT_UINT8", "shape": [None, 28, 28]}


def test_wait_returns_0_only_when_the_version_is_available(capsys):
    with scripted_server(status=lambda *_: status_response((7, "AVAILABLE"))) as target:
        assert main(["wait", "--timeout", "60", "--target", target]) == 0
        assert capsys.readouterr().out == "7\n"
        assert main(["wait", "--version", "7", "--json", "--target", target]) == 0
        assert json.loads(capsys.readouterr().out) == {"version": 7}
    with scripted_server(status=lambda *_: status_response((7, "LOADING"))) as target:
        assert main(["wait", "--timeout", "2", "--target", target]) == 1
    assert "version 7 LOADING" in capsys.readouterr().err


def test_bench_prints_a_line_per_load_and_progress_to_stderr(capsys):
    options = ["--seconds", "1", "--warmup", "0.2", "--batch", "2"]
    with scripted_server() as target:
        assert main(["bench", *options, "--concurrency", "1", "2", "--target", target]) == 0
        output = capsys.readouterr()
        assert main(["bench", *options, "--rate", "50", "--json", "--target", target]) == 0
    assert [line[:11] for line in output.out.splitlines()[1:]] == ["1 in flight", "2 in flight"]
    assert "succeeded" in output.err
    (report,) = json.loads(capsys.readouterr().out)
    assert report["load"]["rate"] == 50
    assert report["images_per_second"] == pytest.approx(2 * report["requests_per_second"])


def test_bench_fails_when_requests_do(capsys):
    calls = []

    def fail_later(request, context):
        calls.append(request)
        return predict_response(request) if len(calls) == 1 else context.abort(grpc.StatusCode.UNAVAILABLE, "full")

    with scripted_server(predict=fail_later) as target:
        assert main(["bench", "--seconds", "0.3", "--warmup", "0", "--concurrency", "1", "--target", target]) == 1
    assert "UNAVAILABLE" in capsys.readouterr().out


def test_bench_without_a_server_fails_at_once(capsys):
    assert main(["bench", "--seconds", "100", "--target", "127.0.0.1:1"]) == 1
    assert "refuses connections" in capsys.readouterr().err


def _run(*arguments, code=None):
    """Run a cold command, or `code`, in a process of its own."""
    command = ["-c", code] if code else ["-m", "serving", *arguments]
    return subprocess.run([sys.executable, *command], capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize(
    "command", [[], ["predict"], ["wait"], ["bench"], ["web"], ["serve"]], ids=lambda names: "".join(names)
)
def test_help_imports_nothing_heavy(command):
    code = (
        "import sys\n"
        "from serving.cli import main\n"
        "try:\n"
        f"    main({[*command, '--help']})\n"
        "except SystemExit:\n"
        "    heavy = {'grpc', 'numpy', 'google', 'PIL', 'asyncio', 'tensorflow', 'starlette'}\n"
        "    print(*sorted(heavy & set(sys.modules)), file=sys.stderr)\n"
    )
    done = _run(code=code)
    assert done.stderr.strip() == ""
    assert "usage: python -m serving" in done.stdout
    assert "exit status:" in done.stdout


def test_serve_help_shows_the_servers_own_options():
    done = _run("serve", "--help")
    assert done.returncode == 0
    assert "MODELS_DIR" in done.stdout
    assert "--port" in done.stdout


@pytest.mark.parametrize(
    ("command", "package", "requirements"),
    [
        (["predict", "a.png"], "grpc", "client.txt"),
        (["wait"], "google.protobuf", "client.txt"),
        (["web"], "starlette", "web.txt"),
        (["web"], "uvicorn", "web.txt"),
        (["serve", "models"], "numpy", "train.txt"),
    ],
)
def test_a_missing_package_is_named_with_the_command_that_installs_it(command, package, requirements):
    done = _run(
        code=f"import sys; sys.modules[{package!r}] = None; from serving.cli import main; sys.exit(main({command}))"
    )
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: {command[0]} needs the package {package}")
    assert done.stderr.endswith(f"-r requirements/{requirements}\n")


@pytest.mark.parametrize("name", ["one.npy", "four.png"])
def test_predict_imports_no_tensorflow_and_nothing_unused(files, name):
    code = (
        "import sys\n"
        "from serving.cli import main\n"
        "main(sys.argv[1:])\n"
        "print(*sorted({'tensorflow', 'tensorflow_serving', 'numpy.ma', 'PIL', 'serving.commands.bench',"
        " 'serving.commands.contact_sheet', 'serving.local_server.command'}"
        " & set(sys.modules)))\n"
    )
    with scripted_server() as target:
        command = [sys.executable, "-c", code, "predict", str(files / name), "--target", target]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.splitlines()[-1] == ""


def test_a_reader_that_closes_the_pipe_early_causes_no_error_message(files):
    np.save(files / "many.npy", np.zeros((5000, 28, 28), np.uint8))
    with scripted_server() as target:
        command = f"{sys.executable} -m serving predict {files / 'many.npy'} --target {target} | head -1"
        done = in_bash(command)
    assert done.stdout.startswith("file")
    assert done.stderr == ""


@pytest.mark.parametrize("arguments", ["--help", "predict {file} --target {target}"])
def test_short_output_to_a_closed_pipe_or_a_full_disk_has_an_exit_status_of_ours(arguments, files):
    """It is still buffered when the command ends; Python itself would exit with 120."""
    with scripted_server() as target:
        command = f"{sys.executable} -m serving {arguments.format(file=files / 'four.png', target=target)}"
        closed, full = in_bash(f"{command} | true; exit ${{PIPESTATUS[0]}}"), in_bash(f"{command} > /dev/full")
    assert (closed.returncode, closed.stderr) == (1, "")
    assert (full.returncode, full.stderr) == (2, "error: cannot write to standard output: No space left on device\n")


def test_a_closed_standard_input_is_named():
    done = in_bash(f"{sys.executable} -m serving predict - --target localhost:1 <&-")
    assert (done.returncode, done.stderr) == (
        2,
        "error: standard input: is closed; send a file to it: predict - < FILE\n",
    )


def test_a_file_name_of_any_bytes_is_printed_and_shown(files, capsys):
    name = files / os.fsdecode(b"\xff\x1b[31m.png")
    name.write_bytes((files / "four.png").read_bytes())
    sheet = files / "sheet.html"
    with scripted_server() as target:
        assert main(["predict", str(name), "--target", target, "--show", str(sheet)]) == 0
    assert "\\x1b[31m.png" in capsys.readouterr().out
    assert "\\x1b[31m.png" in sheet.read_text()


def in_bash(command: str) -> subprocess.CompletedProcess[str]:
    # Unbuffered output, which many images set, would fail at another place.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    return subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=60, env=environment)


def test_sigterm_ends_a_wait_as_ctrl_c_does():
    """In a container, process 1 ignores a signal without a handler, and the wait would not end."""
    asked = threading.Event()
    with scripted_server(status=lambda *_: asked.set() or status_response((7, "LOADING"))) as target:
        command = [sys.executable, "-m", "serving", "wait", "--target", target, "--timeout", "600"]
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
            assert asked.wait(60)
            process.terminate()
            _, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (130, "")
