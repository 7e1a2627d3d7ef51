# The image that TPU VMs and GKE run; docs/launch.md says how to build and push it.
FROM python:3.12-slim

WORKDIR /opt/glm_jax
# The heavy layer first: it stays as it is while only the code changes.
COPY requirements.txt constraints-3.12.txt ./
RUN pip install --no-cache-dir --constraint constraints-3.12.txt \
      --requirement requirements.txt "jax[tpu]" gcsfs

COPY pyproject.toml README.md ./
COPY glm_jax glm_jax
COPY configs configs
COPY launch launch
RUN pip install --no-cache-dir --no-deps .

# TensorFlow and the TPU runtime write only below these.
RUN useradd --create-home --uid 1000 glm
USER glm
ENV PYTHON=python3 \
    TF_CPP_MIN_LOG_LEVEL=2

# The number of the process that docker and Kubernetes send SIGTERM to must be glm-jax's own, which
# launch/local.sh becomes.
CMD ["launch/local.sh", "--help"]
