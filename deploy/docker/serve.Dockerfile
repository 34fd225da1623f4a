# The image that serves: no torch, no compiler, no pip beside the server; a numbered user, on a
# root that may be read-only.
#
#   docker build -f deploy/docker/serve.Dockerfile -t gearshift-serve .
#
# Bases are pinned by version tag: their digests change with every security update. Pin one in a
# release with --build-arg BASE=python@sha256:... Packages are pinned by version and hash.
# `make slim` carries out the build stage without an engine: it reads the instructions below.
ARG BASE=python:3.11-slim-bookworm

FROM ${BASE} AS build
ARG TOOLS=/opt/tools
ARG PREFIX=/opt/gearshift
WORKDIR /src
COPY deploy/docker/build.lock deploy/docker/serve.lock deploy/docker/
RUN python -m venv "$TOOLS" \
 && "$TOOLS/bin/python" -m pip install --quiet --no-cache-dir --only-binary :all: --no-deps \
    --require-hashes -r deploy/docker/build.lock
# The environment itself has no pip: nothing is installed into it later.
RUN python -m venv --without-pip "$PREFIX" \
 && "$TOOLS/bin/python" -m pip --python "$PREFIX/bin/python" install --quiet --no-cache-dir \
    --no-deps --only-binary :all: --require-hashes -r deploy/docker/serve.lock
# What nothing here can reach, 150 MB: what packages test themselves with; what a compiler or a type
# checker would read; the plug-ins of OpenVINO for Intel's other devices, and what it reads ONNX,
# TensorFlow, PyTorch and others with, where the gateway loads IR and runs it on the CPU; zstandard for
# interpreters other than CPython; and what botocore knows of services that hold no objects.
RUN find "$PREFIX" -type d \( -name tests -o -name test_data \) -prune -exec rm -rf {} + \
 && find "$PREFIX/lib" -type f \( \
      -name '*.pyi' -o -name '*.pyx' -o -name '*.pxd' -o -name '*.pxi' -o -name '*.a' \
      -o -name '*.c' -o -name '*.cc' -o -name '*.h' -o -name '*.hpp' \
    \) -delete \
 && find "$PREFIX" -path '*/openvino/libs/*' \( \
      -name 'libopenvino_intel_[gn]pu_plugin.so' -o -name cache.json \
      -o -name 'libopenvino_onnx_frontend.so.*' \
      -o -name 'libopenvino_tensorflow*_frontend.so.*' -o -name 'libopenvino_p*_frontend.so.*' \
      -o -name 'libopenvino_gguf_frontend.so.*' -o -name 'libopenvino_jax_frontend.so.*' \
    \) -delete \
 && find "$PREFIX" -path '*/zstandard/_cffi*.so' -delete \
 && find "$PREFIX" -type d -path '*/botocore/data/*' -prune \
      ! -name s3 ! -name sts ! -name 'sso*' -exec rm -rf {} +
# Only what serves: without compressors/ the package has none.
COPY pyproject.toml README.md LICENSE ./
COPY router router
COPY gateway gateway
RUN "$TOOLS/bin/python" -m pip wheel --quiet --no-cache-dir --no-deps --no-build-isolation \
    --no-index --wheel-dir "$TOOLS/wheels" . \
 && "$TOOLS/bin/python" -m pip --python "$PREFIX/bin/python" install --quiet --no-cache-dir \
    --no-deps --no-index "$TOOLS"/wheels/gearshift-*.whl \
 && "$PREFIX/bin/gearshift" --version

FROM ${BASE} AS serve
ARG PREFIX=/opt/gearshift
COPY --from=build ${PREFIX} ${PREFIX}
# /state holds keys and what they spent, and must outlive a container. /cache holds the copy of a store
# at a URL, and is fetched again without it. A new volume at /models takes over this owner, who is the
# same in the image that builds variants.
RUN mkdir /cache /models /state && chown 65532:65532 /cache /models /state
ENV PATH="${PREFIX}/bin:${PATH}" \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    GEARSHIFT_HOST=0.0.0.0 \
    GEARSHIFT_MODELS=/models \
    GEARSHIFT_STATE=/state \
    GEARSHIFT_STORE_CACHE=/cache
# A number, because Kubernetes cannot tell by a name that a user is not root.
USER 65532:65532
VOLUME ["/cache", "/state"]
# HTTP and gRPC. The admin port, 8082, listens on the container's own loopback.
EXPOSE 8080 8081
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=3s --start-period=120s --retries=3 \
    CMD ["python", "-c", "import os, urllib.request as r; r.urlopen('http://127.0.0.1:' + os.environ.get('GEARSHIFT_PORT', '8080') + '/readyz', timeout=2)"]
ENTRYPOINT ["gearshift"]
CMD ["serve"]
