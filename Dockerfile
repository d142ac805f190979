# For CPUs and, where the engine hands them on, NVIDIA's GPUs: PyTorch's wheels bring CUDA along. Smaller, for CPUs alone:
#   docker build --build-arg TORCH_INDEX=ADDRESS --tag cissod-bench .    (pytorch.org names the index of the CPU builds)
FROM python:3.11-slim-bookworm

RUN apt-get update && apt-get install --yes --no-install-recommends make && rm -rf /var/lib/apt/lists/*

WORKDIR /opt/cissod-bench
COPY . .
ARG TORCH_INDEX=""
RUN PIP_NO_CACHE_DIR=1 make install EXTRAS=train,slurm TORCH_INDEX="$TORCH_INDEX" \
    && .venv/bin/python -m compileall -q cissod_bench

# Any user may run it, `--user` included: results go into the mounted folder, caches into /tmp.
ENV PATH="/opt/cissod-bench/.venv/bin:$PATH" HOME=/tmp
USER 1000
CMD ["cissod-bench", "--help"]
