# The service on an NVIDIA GPU:  docker build -f docker/cuda.Dockerfile -t covid-ct:cuda .
# torch's wheels carry the CUDA libraries, so the base needs none; the host needs its driver and the container toolkit.
ARG PYTHON_VERSION=3.13
ARG BASE_IMAGE=python:${PYTHON_VERSION}-slim-bookworm

FROM ${BASE_IMAGE} AS build
# Empty: the CUDA release that torch's default wheels are built for. For an older driver, the index of PyTorch's wheels
# for an older CUDA.
ARG TORCH_INDEX=
ENV PIP_CACHE_DIR=/var/cache/pip PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /build
RUN python3 -m venv /opt/venv
# Dependencies before code: a change of code leaves these layers alone.
COPY pyproject.toml constraints.txt ./
RUN python3 -c "import tomllib; print(*tomllib.load(open('pyproject.toml', 'rb'))['project']['dependencies'], sep='\n')" \
    > requirements.txt
RUN --mount=type=cache,target=/var/cache/pip \
    /opt/venv/bin/pip install ${TORCH_INDEX:+--extra-index-url "${TORCH_INDEX}"} -c constraints.txt torch \
    && /opt/venv/bin/pip install -c constraints.txt -r requirements.txt \
    && /opt/venv/bin/pip check

FROM ${BASE_IMAGE}
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="covid-ct" \
      org.opencontainers.image.description="Chest CT inference service, CUDA. Research only, not a medical device." \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
ENV PATH=/opt/venv/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility \
    COVIDCT_HOST=0.0.0.0
WORKDIR /app
COPY --from=build /opt/venv /opt/venv
COPY models ./models
COPY service ./service
USER 10001:10001
EXPOSE 8000
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=5s --timeout=5s --start-period=60s --retries=3 \
    CMD ["python", "-c", "import os, urllib.request as u; u.urlopen('http://127.0.0.1:' + os.environ.get('COVIDCT_PORT', '8000') + '/health/ready', timeout=4)"]
CMD ["python", "-m", "service"]
