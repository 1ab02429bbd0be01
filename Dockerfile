# Three images from one file. Artefacts, and MNIST with them, are on a volume at /artifacts and never in an image.
#
#     docker build -t digits-trainer .                            # training, TensorBoard, the local server (CPU)
#     docker build -t digits-trainer-gpu --target trainer-gpu .   # the same with CUDA; the host needs only its driver
#     docker build -t digits-client --target client .             # predict, wait, bench, web: no TensorFlow
#
# The arguments after the image's name are a Python module and its arguments. `digits` has all commands of both sides:
#
#     docker run -v artifacts:/artifacts digits-trainer digits train --preset quickstart
#     docker run -v artifacts:/artifacts -p 6006:6006 digits-trainer tensorboard.main --logdir /artifacts/runs --bind_all
#     docker run digits-client digits status --target server:8500

# A tag moves. `make push` builds from the digest that the tag has at that time and records both in the image's provenance.
ARG BASE=docker.io/library/python:3.11-slim-bookworm

FROM ${BASE} AS base
# A numeric user, which runAsNonRoot needs, and the same one everywhere: every pod can read what another pod wrote.
RUN groupadd --gid 10001 digits \
    && useradd --uid 10001 --gid 10001 --no-log-init --home-dir /tmp --shell /usr/sbin/nologin digits \
    && install --directory --owner=10001 --group=10001 /artifacts
# The root is read-only, so libraries write to /tmp, which must be mounted.
ENV HOME=/tmp TMPDIR=/tmp KERAS_HOME=/tmp/keras MPLCONFIGDIR=/tmp/matplotlib \
    PYTHONUNBUFFERED=1 PYTHONPATH=/app
# The default artefacts root is `artifacts` in the working directory. Here that is the volume.
WORKDIR /
ENTRYPOINT ["python", "-m"]
LABEL org.opencontainers.image.title="digits" \
      org.opencontainers.image.description="Train a digit recogniser and hand it to TensorFlow Serving" \
      org.opencontainers.image.licenses="Apache-2.0"


FROM base AS client
COPY requirements/web.txt /tmp/requirements.txt
# NumPy's own tests are a sixth of the installed files. Nothing is installed at run time, so pip goes too.
RUN pip install --no-cache-dir --require-hashes -r /tmp/requirements.txt && rm /tmp/requirements.txt \
    && find /usr/local/lib/python3.11/site-packages -name tests -type d -prune -exec rm -r {} + \
    && pip uninstall --yes --quiet wheel setuptools pip
COPY digits.py percent.py quiet_tensorflow.py /app/
COPY serving /app/serving
RUN python -m compileall -q /app
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.version=$VERSION org.opencontainers.image.revision=$REVISION
USER 10001:10001
CMD ["serving", "--help"]


FROM base AS trainer-gpu
COPY requirements/gpu.txt /tmp/requirements.txt
RUN pip install --no-cache-dir --require-hashes -r /tmp/requirements.txt && rm /tmp/requirements.txt
# The parts of the driver that the NVIDIA runtime mounts into the container.
ENV NVIDIA_DRIVER_CAPABILITIES=compute,utility
COPY digits.py percent.py quiet_tensorflow.py /app/
COPY serving /app/serving
COPY trainer /app/trainer
RUN python -m compileall -q /app
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.version=$VERSION org.opencontainers.image.revision=$REVISION
ENV DIGITS_REVISION=$REVISION
USER 10001:10001
VOLUME ["/artifacts"]
CMD ["trainer", "train"]


FROM base AS trainer
COPY requirements/train.txt /tmp/requirements.txt
RUN pip install --no-cache-dir --require-hashes -r /tmp/requirements.txt && rm /tmp/requirements.txt
COPY digits.py percent.py quiet_tensorflow.py /app/
COPY serving /app/serving
COPY trainer /app/trainer
RUN python -m compileall -q /app
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.version=$VERSION org.opencontainers.image.revision=$REVISION
ENV DIGITS_REVISION=$REVISION
USER 10001:10001
VOLUME ["/artifacts"]
CMD ["trainer", "train"]
