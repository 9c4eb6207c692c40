# Targets: service (no torch), service-gpu (CUDA), trainer (torch). No feature of BuildKit is needed; the
# classic builder builds every stage above its target, so the small ones come first.
# PIP_ARGS goes to pip: another index, or --find-links . for wheels put into a folder named wheels.

FROM python:3.11-slim-bookworm AS base
RUN useradd --uid 10001 --create-home carousel && install -d -o carousel /models /runs
# ONNX Runtime reports what it is used for to its makers unless told not to.
ENV PATH=/opt/carousel/bin:$PATH PYTHONUNBUFFERED=1 ORT_DISABLE_TELEMETRY=1
USER carousel
WORKDIR /home/carousel
ENTRYPOINT ["carousel"]

FROM base AS served
ENV CAROUSEL_MODELS=/models CAROUSEL_HOST=0.0.0.0 CAROUSEL_LOG_FORMAT=json
EXPOSE 8001 8002
HEALTHCHECK --interval=5s --timeout=3s --start-period=30s \
    CMD ["python3", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:8002/readyz', timeout=2)"]
CMD ["serve"]

FROM python:3.11-slim-bookworm AS build
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PATH=/opt/carousel/bin:$PATH
WORKDIR /src
# Without any code or text of ours yet, a change of it does not install everything else again.
RUN python3 -m venv /opt/carousel && touch README.md
COPY pyproject.toml constraints.txt wheel[s] ./

FROM build AS build-service
ARG PIP_ARGS=""
RUN pip install $PIP_ARGS --constraint constraints.txt '.[cpu]'
COPY . .
RUN pip install --no-deps --force-reinstall . && pip uninstall --yes pip setuptools

FROM served AS service
COPY --from=build-service /opt/carousel /opt/carousel

FROM build AS build-trainer
ARG PIP_ARGS=""
RUN pip install $PIP_ARGS --constraint constraints.txt torch==2.13.0 \
    && pip install $PIP_ARGS --constraint constraints.txt '.[cpu,train,export]'
COPY . .
RUN pip install --no-deps --force-reinstall . && pip uninstall --yes pip setuptools

FROM base AS trainer
COPY --from=build-trainer /opt/carousel /opt/carousel
CMD ["--help"]

FROM build AS build-service-gpu
ARG PIP_ARGS=""
RUN pip install $PIP_ARGS --constraint constraints.txt '.[gpu]'
COPY . .
RUN pip install --no-deps --force-reinstall . && pip uninstall --yes pip setuptools

FROM served AS service-gpu
COPY --from=build-service-gpu /opt/carousel /opt/carousel
# The runtime looks for CUDA and cuDNN by name, and pip has put them where no linker looks.
ENV CAROUSEL_PROVIDER=cuda \
    LD_LIBRARY_PATH=/opt/carousel/lib/python3.11/site-packages/nvidia/cu13/lib:/opt/carousel/lib/python3.11/site-packages/nvidia/cudnn/lib
