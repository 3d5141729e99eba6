# The service, on the CPU or on an NVIDIA GPU:
#   docker build -f docker/service.Dockerfile -t covid-ct:cpu .
#   docker build -f docker/service.Dockerfile --build-arg DEVICE=cuda -t covid-ct:cuda .
# For cuda, the host needs the NVIDIA driver and the container toolkit; torch's wheels include the CUDA libraries. Without
# a GPU that image does not start; COVIDCT_DEVICE=auto lets it compute on the CPU, many times slower.
ARG PYTHON_VERSION=3.13.16
ARG BASE_IMAGE=python:${PYTHON_VERSION}-slim-bookworm

FROM ${BASE_IMAGE} AS build
ARG DEVICE=cpu
# Index for torch alone. Default: PyTorch's own for cpu, because only it has builds without gigabytes of CUDA, and pip's
# default for cuda. For an older driver, name PyTorch's index for an older CUDA.
ARG TORCH_INDEX=
# Default: the version in constraints.txt.
ARG TORCH_VERSION=
ENV PIP_CACHE_DIR=/var/cache/pip PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /build
# pip is not in the image: it runs in its own environment and installs into the final one.
RUN python3 -m venv /opt/pip && python3 -m venv --without-pip /opt/venv
# Dependencies before code, so that a code change does not rebuild these layers.
COPY pyproject.toml constraints.txt docker/slim.sh ./
RUN python3 -c "import tomllib; p = tomllib.load(open('pyproject.toml', 'rb'))['project']; e = p['optional-dependencies']; \
print(*p['dependencies'], *e['model'], *e['serve'], *e['pacs'], sep='\n')" | grep -v ^covid-ct > requirements.txt \
    && sed -i "s/^torch==.*/torch==${TORCH_VERSION:-$(sed -n 's/^torch==//p' constraints.txt)}/" constraints.txt
RUN --mount=type=cache,target=/var/cache/pip \
    if [ "${DEVICE}" = cpu ]; then : "${TORCH_INDEX:=https://download.pytorch.org/whl/cpu}"; fi \
    && /opt/pip/bin/pip --python /opt/venv/bin/python install --no-deps ${TORCH_INDEX:+--index-url "${TORCH_INDEX}"} \
        -c constraints.txt torch \
    && /opt/pip/bin/pip --python /opt/venv/bin/python install -c constraints.txt -r requirements.txt \
    && /opt/pip/bin/pip --python /opt/venv/bin/python check \
    && /opt/pip/bin/pip install -c constraints.txt cyclonedx-bom \
    && /opt/pip/bin/cyclonedx-py environment /opt/venv/bin/python --output-file sbom.cdx.json \
    && sh slim.sh /opt/venv

FROM ${BASE_IMAGE}
ARG DEVICE=cpu
# GLIBC_TUNABLES: memory in huge pages makes the network on a CPU a tenth faster, see docs/performance.md.
ENV PATH=/opt/venv/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    GLIBC_TUNABLES=glibc.malloc.hugetlb=1 \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility \
    COVIDCT_DEVICE=${DEVICE} \
    COVIDCT_HOST=0.0.0.0
WORKDIR /app
# Folder for models trained elsewhere; a volume mounted here takes its owner.
RUN install -d -o 10001 -g 10001 /models
COPY --from=build /opt/venv /opt/venv
COPY --from=build /build/sbom.cdx.json ./
COPY docker/healthcheck.sh ./
COPY models ./models
COPY covid_ct ./covid_ct
COPY service ./service
ARG VERSION=1.0.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="covid-ct" \
      org.opencontainers.image.description="Chest CT inference service, ${DEVICE}. Research only, not a medical device." \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
USER 10001:10001
EXPOSE 8000
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=5s --timeout=5s --start-period=60s --retries=3 CMD ["bash", "/app/healthcheck.sh"]
CMD ["python", "-m", "service"]
