# The CPU image, with Ray for clusters. The image itself was never built by the project: only its
# install lines are run, in a fresh environment, by `nox -s dockerfile`.
FROM python:3.11-slim

WORKDIR /opt/dnm_sklearn
COPY pyproject.toml setup.cfg README.md LICENSE THIRD_PARTY_NOTICES ./
COPY dnm_sklearn ./dnm_sklearn
# Where uv finds PyTorch: the index of its CPU builds, a fifth of the size of those for GPUs.
ENV UV_TORCH_BACKEND=cpu
RUN python -m pip install --no-cache-dir uv
RUN python -m uv pip install --system --no-cache ".[ray]"

# Weights and embeddings that should outlive a container belong on a volume.
ENV HF_HOME=/data/models DNM_SKLEARN_CACHE=/data/text_banks
VOLUME /data
WORKDIR /data
ENTRYPOINT ["dnm-bench"]
CMD ["--help"]
