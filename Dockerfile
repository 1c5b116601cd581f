# The image of the service and of its load generator. Two stages: what builds stays behind.
# The base is pinned by release; pin it by digest where your registry is at hand.
FROM python:3.11-slim-bookworm AS build

# For the two extensions, all that is compiled. (python3-dev is for bases whose Python is
# Debian's; the official image brings its own headers.)
RUN apt-get update \
 && apt-get install -y --no-install-recommends gcc libc6-dev libssl-dev python3-dev \
 && rm -rf /var/lib/apt/lists/*

WORKDIR /src
RUN python -m venv /opt/connect-actor /opt/build
COPY requirements.lock requirements-build.lock ./
RUN /opt/build/bin/pip install --no-cache-dir --disable-pip-version-check \
      --require-hashes -r requirements-build.lock \
 && /opt/connect-actor/bin/pip install --no-cache-dir --disable-pip-version-check \
      --require-hashes -r requirements.lock

COPY pyproject.toml hatch_build.py README.md LICENSE ./
COPY protos protos
COPY service service
COPY loadgen loadgen
# Built by what the lock names, and then installed without a look at any index.
RUN /opt/build/bin/pip wheel --no-cache-dir --disable-pip-version-check \
      --no-deps --no-build-isolation --wheel-dir /tmp/wheels . \
 && /opt/connect-actor/bin/pip install --no-cache-dir --disable-pip-version-check \
      --no-deps --no-index /tmp/wheels/*.whl \
 && /opt/connect-actor/bin/pip uninstall --yes --disable-pip-version-check pip setuptools

FROM python:3.11-slim-bookworm

LABEL org.opencontainers.image.title="connect-actor" \
      org.opencontainers.image.description="Persistent, end-to-end encrypted sessions over gRPC" \
      org.opencontainers.image.version="0.1.0" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.base.name="docker.io/library/python:3.11-slim-bookworm"

# Numbers, so that an orchestrator can see that it is not root.
RUN groupadd --gid 10001 connect-actor \
 && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /nonexistent \
      --shell /usr/sbin/nologin connect-actor \
 && install --directory --owner 10001 --group 10001 --mode 0700 /data

COPY --from=build /opt/connect-actor /opt/connect-actor

# Inside a container "every address" is the container's own network; what is published, and where,
# is the engine's affair (see docker-compose.yml). gRPC there wants a certificate
# (CONNECT_ACTOR_TLS_CERTIFICATE, …) or, on a network of your own, CONNECT_ACTOR_ALLOW_PLAINTEXT.
ENV PATH=/opt/connect-actor/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    MPLCONFIGDIR=/tmp/matplotlib \
    CONNECT_ACTOR_DATA_DIR=/data \
    CONNECT_ACTOR_LISTEN=0.0.0.0:50051 \
    CONNECT_ACTOR_METRICS_LISTEN=0.0.0.0:9464

USER 10001:10001
WORKDIR /tmp
VOLUME ["/data"]
EXPOSE 50051 9464
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=5s --timeout=5s --start-period=20s --retries=6 CMD ["connect-actor", "health"]
CMD ["connect-actor", "serve"]
