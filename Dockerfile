# The CPU image, with Ray for clusters. Not built in the project's own checks; `nox -s dockerfile`
# runs its install lines in a fresh environment.
FROM python:3.11-slim

WORKDIR /opt/dnm_sklearn
COPY pyproject.toml setup.cfg README.md LICENSE THIRD_PARTY_NOTICES ./
COPY dnm_sklearn ./dnm_sklearn
RUN python -m pip install --no-cache-dir uv
RUN python -m uv pip install --system --no-cache --torch-backend=cpu ".[ray]"

# Weights and embeddings that should outlive a container belong on a volume.
ENV HF_HOME=/data/models DNM_SKLEARN_CACHE=/data/text_banks
VOLUME /data
WORKDIR /data
ENTRYPOINT ["dnm-bench"]
CMD ["--help"]
