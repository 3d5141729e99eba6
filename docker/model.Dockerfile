# A model of your own for the overlay own-model of deploy/kubernetes:
#   docker build -f docker/model.Dockerfile -t covid-ct-model:1.0.0 runs/lesion/model
# The context is a models folder. The base is the service's image: the nodes have it already, and its code checks the
# files during the build.
ARG BASE_IMAGE=covid-ct:cpu
FROM ${BASE_IMAGE}
COPY . /model/
RUN python -c "from pathlib import Path; from service.model.loading import *; load_predictor(LoadOptions(Path('/model')))"
HEALTHCHECK NONE
CMD ["cp", "-r", "/model/.", "/models/"]
