# Stands in for Orthanc's own image where that can't be pulled: Debian's version without a viewer, the same variables,
# ports, data folder and health check. Orthanc reads variables in its configuration itself.
ARG BASE_IMAGE
FROM ${BASE_IMAGE}
RUN apt-get update && apt-get install -y --no-install-recommends orthanc orthanc-dicomweb && rm -rf /var/lib/apt/lists/*
COPY orthanc.json /etc/covid-ct-test.json
RUN install -d /probes && printf '%s\n' '#!/usr/bin/python3' 'from urllib.request import urlopen' \
    'urlopen("http://127.0.0.1:8042/system", timeout=5)' > /probes/test-aliveness.py && chmod 755 /probes/test-aliveness.py
ENTRYPOINT ["/usr/sbin/Orthanc", "/etc/covid-ct-test.json"]
