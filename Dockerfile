# One image for every service; docker-compose.yml starts each with its own command.
FROM python:3.11-slim-bookworm

RUN apt-get update && apt-get install -y --no-install-recommends espeak-ng && rm -rf /var/lib/apt/lists/*
WORKDIR /app
COPY requirements.lock ./
RUN pip install --no-cache-dir --require-hashes -r requirements.lock
COPY . .
# EXTRAS=interaction adds torch and transformers for GPU workers. What torch compiles there wants a C compiler.
ARG EXTRAS=
RUN if [ -n "$EXTRAS" ]; then \
      apt-get update && apt-get install -y --no-install-recommends gcc libc6-dev && rm -rf /var/lib/apt/lists/*; \
    fi
RUN pip install --no-cache-dir --no-deps --no-build-isolation -e . && \
    if [ -n "$EXTRAS" ]; then pip install --no-cache-dir -e ".[$EXTRAS]"; fi

RUN useradd --create-home offhook && mkdir -p /data /models && chown offhook /data /models
USER offhook
ENV OFFHOOK_DATA=/data OFFHOOK_MODELS=/models PYTHONUNBUFFERED=1 OMP_NUM_THREADS=1
VOLUME ["/data", "/models"]
