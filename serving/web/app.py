"""The page's server: static files, predictions and two probes. Predictions come from the model server.

POST /predict        a picture's bytes -> JSON: digit, confidence, sure, found, probabilities, normalized, version
POST /corrections/7  a picture's bytes -> JSON: how many pictures are kept; this one is now kept as a 7 (kept_pictures.py)
GET  /corrections    whether this server keeps pictures, and how many there are
GET  /healthz        200 while this process runs, with or without a model: for liveness
GET  /readyz         200 while a model is AVAILABLE, else 503: for readiness, and for the page to notice a new model
"""

from __future__ import annotations

import asyncio
import base64
import logging
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from pathlib import Path

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from serving.client.async_client import AsyncDigitClient
from serving.client.config import ClientConfig
from serving.client.errors import DeadlineError, NotFoundError, RequestError, ServingError, UnavailableError
from serving.client.results import PicturePrediction
from serving.contract import CLASSES, MAX_PICTURE_BYTES
from serving.web.kept_pictures import FullError, KeptPictures
from serving.web.middleware import HostGuard, Revalidation

PAGE = Path(__file__).parent / "page"
UPLOAD_SECONDS = 30
"""Deadline for the upload of a picture."""
UPLOAD_GRACE_SECONDS = 5
MIN_BYTES_PER_SECOND = 16 * 1024
"""An upload that is slower on average, after the grace period, is rejected."""
MAX_HELD_BYTES = 16 * MAX_PICTURE_BYTES
"""Bytes of all pictures in memory; further ones are rejected. Counted as they arrive, so that slow uploads hold little."""
MAX_PREDICTIONS = 16
"""Requests to the model server at once; further ones wait `WAIT_SECONDS` at most."""
WAIT_SECONDS = 2
STATUS_SECONDS = 2
DIGITS = [str(digit) for digit in range(CLASSES)]
CLOSE = {"connection": "close"}
"""Header of a response to an incomplete upload: the rest would have to be received first."""


def build_app(
    target: str,
    config: ClientConfig,
    *,
    min_confidence: float,
    allowed_hosts: Collection[str] = (),
    kept: KeptPictures | None = None,
) -> Starlette:
    """Build the ASGI application.

    Args:
        target: the model server.
        config: the client's settings.
        min_confidence: predictions below it are not `sure`.
        allowed_hosts: host names that browsers may use, besides localhost and IP addresses.
        kept: where corrected pictures are kept; None keeps none.
    """

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        app.state.held_bytes, app.state.predictions = 0, asyncio.Semaphore(MAX_PREDICTIONS)
        async with AsyncDigitClient(target, config) as app.state.client:
            yield

    async def predict(request: Request) -> Response:
        async with _read_picture(request) as picture, _turn(request.app.state.predictions):
            (prediction,) = await request.app.state.client.predict_pictures([picture])
        if prediction.problem:
            return _reject_picture(prediction.problem)
        return JSONResponse(_fields(prediction, min_confidence), headers={"cache-control": "no-store"})

    async def correct(request: Request) -> Response:
        if kept is None:
            raise HTTPException(404, "This server keeps no pictures; --collect FOLDER lets it.")
        name = request.path_params["digit"]
        if name not in DIGITS:
            raise HTTPException(404, f"{name:.20} is not a digit.")
        digit = int(name)
        _refuse_other_sites(request)
        # Predicted again: what is kept must be a picture that the model can use, and its answer must be the model's.
        async with _read_picture(request) as picture, _turn(request.app.state.predictions):
            (prediction,) = await request.app.state.client.predict_pictures([picture])
            if prediction.problem:
                return _reject_picture(prediction.problem)
            if not prediction.normalized.any():
                return _reject_picture("shows no digit")
            try:
                pictures = await _keep(kept, picture, digit, prediction)
            except ValueError as error:
                return _reject_picture(f"has metadata that cannot be removed: {error}")
            return JSONResponse({"pictures": pictures})

    async def corrections(_: Request) -> Response:
        pictures = await asyncio.to_thread(kept.count) if kept else 0
        return JSONResponse({"collects": kept is not None, "pictures": pictures})

    async def ready(request: Request) -> Response:
        client = request.app.state.client
        if config.version_label is not None:  # The status does not name labels.
            try:
                metadata = await client.metadata(timeout_seconds=STATUS_SECONDS)
            except RequestError as error:
                raise HTTPException(503, _NO_MODEL) from error
            return JSONResponse({"versions": [str(metadata.version)]})
        statuses = await client.status(config.version, timeout_seconds=STATUS_SECONDS)
        available = [str(status.version) for status in statuses if status.state == "AVAILABLE"]
        if not available:
            raise HTTPException(503, _NO_MODEL)
        return JSONResponse({"versions": available})

    async def healthy(_: Request) -> Response:
        return JSONResponse({})

    return Starlette(
        routes=[
            Route("/predict", predict, methods=["POST"]),
            Route("/corrections", corrections),
            Route("/corrections/{digit}", correct, methods=["POST"]),
            Route("/healthz", healthy),
            Route("/readyz", ready),
            Mount("/", StaticFiles(directory=PAGE, html=True)),
        ],
        middleware=[Middleware(Revalidation), Middleware(HostGuard, names=allowed_hosts)],
        exception_handlers={
            HTTPException: _respond_to_http_error,
            ServingError: _respond_to_serving_error,
            ClientDisconnect: _respond_to_disconnect,
        },
        lifespan=lifespan,
    )


@asynccontextmanager
async def _turn(semaphore: asyncio.Semaphore) -> AsyncIterator[None]:
    try:
        async with asyncio.timeout(WAIT_SECONDS):
            await semaphore.acquire()
    except TimeoutError as error:
        raise HTTPException(503, _BUSY) from error
    try:
        yield
    finally:
        semaphore.release()


@asynccontextmanager
async def _read_picture(request: Request) -> AsyncIterator[bytes]:
    """Read the picture in the body; its bytes count as held until the block ends."""
    # A form on another site can send neither type without a CORS preflight, which this server never allows.
    if not request.headers.get("content-type", "").lower().startswith(("image/", "application/octet-stream")):
        raise HTTPException(415, "Send the bytes of a picture, as image/... or application/octet-stream.")
    content, state, begin = bytearray(), request.app.state, asyncio.get_running_loop().time()
    try:
        try:
            async with asyncio.timeout(UPLOAD_GRACE_SECONDS) as deadline:
                async for part in request.stream():
                    content += part
                    state.held_bytes += len(part)
                    if len(content) > MAX_PICTURE_BYTES:
                        raise HTTPException(413, f"A picture may have at most {MAX_PICTURE_BYTES >> 20} MiB.", CLOSE)
                    if state.held_bytes > MAX_HELD_BYTES:
                        raise HTTPException(503, _BUSY, CLOSE)
                    allowed = UPLOAD_GRACE_SECONDS + len(content) / MIN_BYTES_PER_SECOND
                    deadline.reschedule(begin + min(allowed, UPLOAD_SECONDS))
        except TimeoutError as error:
            raise HTTPException(408, "The picture arrived too slowly.", CLOSE) from error
        yield bytes(content)
    finally:
        state.held_bytes -= len(content)


def _refuse_other_sites(request: Request) -> None:
    """Reject what a page of another site sends. The content type, checked later, stops browsers without this header."""
    if request.headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
        raise HTTPException(403, "Only this server's own page may send corrections.")


async def _keep(kept: KeptPictures, picture: bytes, digit: int, prediction: PicturePrediction) -> int:
    try:
        return await asyncio.to_thread(kept.keep, picture, digit, prediction)
    except FullError as error:
        raise HTTPException(507, str(error)) from error
    except OSError as error:
        logging.getLogger(__name__).warning("a picture could not be kept: %s", error)
        raise HTTPException(
            507, "The picture could not be kept; the log of the page's server has the reason."
        ) from error


def _fields(prediction: PicturePrediction, min_confidence: float) -> dict[str, object]:
    return {
        "digit": prediction.digit,
        "confidence": prediction.confidence,
        "sure": prediction.is_one_digit and prediction.confidence >= min_confidence,
        "found": prediction.found,
        "probabilities": prediction.probabilities.tolist(),
        # uint8 [28, 28], 0 = paper, 255 = ink
        "normalized": base64.b64encode(prediction.normalized.tobytes()).decode(),
        "version": str(prediction.version),  # JavaScript's numbers are exact only to 2^53
    }


_NO_MODEL = (
    "No model is being served yet. make demo trains one, make serve serves it. "
    "The page continues by itself as soon as there is one."
)
_BUSY = "The page's server is busy. The page continues by itself."


def _reject_picture(problem: str) -> Response:
    return JSONResponse({"error": f"The model cannot use this picture: it {problem}."}, 422)


async def _respond_to_http_error(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return JSONResponse({"error": error.detail}, error.status_code, headers=error.headers)


async def _respond_to_disconnect(_: Request, __: Exception) -> Response:
    return Response(status_code=400)  # The browser disconnected during the upload, so this response is not received.


async def _respond_to_serving_error(_: Request, error: Exception) -> Response:
    """Respond with 503 if waiting helps, 422 if the picture cannot be used, 502 for any other error of the server."""
    if isinstance(error, UnavailableError | NotFoundError):
        return JSONResponse({"error": _NO_MODEL}, 503)
    if isinstance(error, DeadlineError):
        return JSONResponse({"error": "The model server does not respond in time. The page continues by itself."}, 503)
    if isinstance(error, RequestError) and error.index is not None:
        return _reject_picture(error.problem)  # a model version without the output `problem`
    logging.getLogger(__name__).warning("the model server failed: %s", error)
    # The error names the model server's address, which only the operator may see.
    return JSONResponse({"error": "The model server failed; the log of the page's server has the reason."}, 502)
