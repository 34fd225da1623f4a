# The image that builds variants: torch for the CPU, every engine, and a C++ compiler for
# AOTInductor packages.
#
#   docker build -f deploy/docker/compress.Dockerfile -t gearshift-compress .
#   docker run --rm -v "$PWD/models:/models" gearshift-compress compress digits --out /models
#
# Pinned as serve.Dockerfile is; torch by its version alone, because its index for the CPU is
# another than the one that the other packages' hashes are of.
ARG BASE=python:3.11-slim-bookworm

FROM ${BASE} AS build
ARG TOOLS=/opt/tools
ARG PREFIX=/opt/gearshift
ARG TORCH=2.13.0
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
WORKDIR /src
COPY deploy/docker/build.lock deploy/docker/compress.lock deploy/docker/
RUN python -m venv "$TOOLS" \
 && "$TOOLS/bin/python" -m pip install --quiet --no-cache-dir --only-binary :all: --no-deps \
    --require-hashes -r deploy/docker/build.lock
RUN python -m venv --without-pip "$PREFIX" \
 && "$TOOLS/bin/python" -m pip --python "$PREFIX/bin/python" install --quiet --no-cache-dir \
    --no-deps --only-binary :all: --index-url "$TORCH_INDEX" "torch==$TORCH"
RUN "$TOOLS/bin/python" -m pip --python "$PREFIX/bin/python" install --quiet --no-cache-dir \
    --no-deps --only-binary :all: --require-hashes -r deploy/docker/compress.lock
COPY pyproject.toml README.md LICENSE ./
COPY router router
COPY gateway gateway
COPY compressors compressors
RUN "$TOOLS/bin/python" -m pip wheel --quiet --no-cache-dir --no-deps --no-build-isolation \
    --no-index --wheel-dir "$TOOLS/wheels" . \
 && "$TOOLS/bin/python" -m pip --python "$PREFIX/bin/python" install --quiet --no-cache-dir \
    --no-deps --no-index "$TOOLS"/wheels/gearshift-*.whl \
 && "$PREFIX/bin/gearshift" --version

FROM ${BASE} AS compress
ARG PREFIX=/opt/gearshift
# Without it a network is lowered to everything but AOTInductor packages.
# hadolint ignore=DL3008
RUN apt-get update \
 && apt-get install --yes --no-install-recommends g++ \
 && rm -rf /var/lib/apt/lists/*
COPY --from=build ${PREFIX} ${PREFIX}
RUN mkdir /models && chown 65532:65532 /models
# What trains is cached in the home folder, and matplotlib and torch keep files of their own there.
ENV PATH="${PREFIX}/bin:${PATH}" \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    HOME=/tmp
USER 65532:65532
WORKDIR /tmp
ENTRYPOINT ["gearshift"]
CMD ["compress", "--help"]
