# The container image:
#
#     docker build -t tedee-exporter .
#     docker run --rm -p 127.0.0.1:10333:10333 tedee-exporter --demo --web.listen-address=:10333
#
# The base must have Python 3.11 or newer as python3, with venv. Both stages use the same base, because the virtual
# environment of the first stage refers to the Python of its base.
ARG BASE=python:3.13-slim-trixie
# Pins one build of the base: sha256:…
ARG BASE_DIGEST=


FROM ${BASE}${BASE_DIGEST:+@${BASE_DIGEST}} AS build
WORKDIR /src
RUN python3 -m venv /build && python3 -m venv --without-pip /opt/tedee-exporter
# Dependencies are installed before the code is copied, so that their layer is rebuilt only if a lock file changes. Only
# wheels, because there is no compiler.
COPY requirements-build.lock requirements.lock ./
RUN /build/bin/pip install --no-cache-dir --require-hashes --only-binary :all: -r requirements-build.lock \
    && /build/bin/pip --python /opt/tedee-exporter \
        install --no-cache-dir --require-hashes --only-binary :all: -r requirements.lock
COPY pyproject.toml README.md LICENSE ./
COPY exporter exporter
RUN /build/bin/pip wheel --no-cache-dir --no-deps --no-build-isolation --wheel-dir dist . \
    && /build/bin/pip --python /opt/tedee-exporter install --no-cache-dir --no-deps dist/*.whl


FROM ${BASE}${BASE_DIGEST:+@${BASE_DIGEST}}
COPY --from=build /opt/tedee-exporter /opt/tedee-exporter
COPY packaging/docker/healthcheck.py /opt/tedee-exporter/
# A new volume inherits the owner of this folder.
RUN install --directory --owner=65532 --group=65532 --mode=0700 /var/lib/tedee-exporter
ENV PATH=/opt/tedee-exporter/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    STATE_DIRECTORY=/var/lib/tedee-exporter
USER 65532:65532
VOLUME /var/lib/tedee-exporter
EXPOSE 10333
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=30s --timeout=10s --start-period=30s CMD ["python3", "-I", "/opt/tedee-exporter/healthcheck.py"]
ENTRYPOINT ["tedee-exporter"]

ARG BASE
ARG BASE_DIGEST
ARG VERSION=unknown
ARG REVISION=unknown
LABEL org.opencontainers.image.title="tedee-exporter" \
      org.opencontainers.image.description="Prometheus exporter for Tedee smart locks" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.base.name="${BASE}" \
      org.opencontainers.image.base.digest="${BASE_DIGEST}"
