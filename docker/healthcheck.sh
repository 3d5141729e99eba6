#!/bin/bash
# Exit status 0 if the service in this container is ready, else 1. In bash, because the image has no curl, and
# starting Python takes thirty times as long. HTTP/1.0 has no Host, so COVIDCT_ALLOWED_HOSTS does not matter.
{ exec 3<>"/dev/tcp/127.0.0.1/${COVIDCT_PORT:-8000}"; } 2>/dev/null || exit 1
printf 'GET /health/ready HTTP/1.0\r\n\r\n' >&3
read -r -t 4 _ status _ <&3 || exit 1
[[ $status == 200 ]]
