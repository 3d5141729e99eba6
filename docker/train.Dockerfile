# The training job, on a GPU or a CPU:  docker build -f docker/train.Dockerfile -t covid-ct:train .
ARG PYTHON_VERSION=3.13.16
ARG BASE_IMAGE=python:${PYTHON_VERSION}-slim-bookworm

FROM ${BASE_IMAGE} AS build
# Default: the CUDA release of torch's default wheels.
ARG TORCH_INDEX=
ENV PIP_CACHE_DIR=/var/cache/pip PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /build
RUN python3 -m venv /opt/pip && python3 -m venv --without-pip /opt/venv
COPY pyproject.toml constraints.txt ./
RUN python3 -c "import tomllib; p = tomllib.load(open('pyproject.toml', 'rb'))['project']; e = p['optional-dependencies']; \
print(*p['dependencies'], *e['model'], *e['training'], sep='\n')" | grep -v ^covid-ct > requirements.txt
RUN --mount=type=cache,target=/var/cache/pip \
    /opt/pip/bin/pip --python /opt/venv/bin/python install ${TORCH_INDEX:+--extra-index-url "${TORCH_INDEX}"} \
        -c constraints.txt -r requirements.txt \
    && /opt/pip/bin/pip --python /opt/venv/bin/python check

FROM ${BASE_IMAGE}
# The commit for metrics.json: the image has no git.
ARG REVISION=unknown
ENV PATH=/opt/venv/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility \
    MPLCONFIGDIR=/tmp/matplotlib \
    TORCH_HOME=/runs/torch \
    SOURCE_REVISION=${REVISION}
WORKDIR /app
RUN install -d -o 10001 -g 10001 /runs /models
COPY --from=build /opt/venv /opt/venv
COPY service ./service
COPY training ./training
LABEL org.opencontainers.image.title="covid-ct-train" \
      org.opencontainers.image.description="Training job of covid-ct. Research only, not a medical device." \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.revision="${REVISION}"
USER 10001:10001
STOPSIGNAL SIGTERM
# Arguments after `train` replace the last line; name the folders again.
ENTRYPOINT ["python", "-m", "training"]
CMD ["train", "--data", "/data/covid-ct", "--lesions", "/data/lesions", "--clear", "/data/clear", \
    "--labelled", "/data/labelled", "--run", "/runs/lesion", "--release", "/models"]
