#!/bin/sh
# Removes files that serving never opens: headers, static libraries, tests of packages, build tools.
# usage: slim.sh VENV
set -eu

site=$(echo "$1"/lib/python3*/site-packages)
rm -rf "$site"/torch/include "$site"/torch/share "$site"/torch/test
find "$site"/torch/bin -type f -not -name torch_shm_manager -delete # importing torch needs this one
rm -rf "$site"/torch/utils/model_dump "$site"/torch/utils/benchmark/examples
find "$site" -type f \( -name '*.a' -o -name '*.pyx' -o -name '*.pxd' -o -name '*.h' -o -name '*.hpp' \) -delete
find "$site" -type d -name tests -not -path '*/torch/*' -prune -exec rm -rf {} +
find "$site" -type d -name __pycache__ -prune -exec rm -rf {} +

"$1"/bin/python -B -c 'import torch' # check that nothing needed was removed
