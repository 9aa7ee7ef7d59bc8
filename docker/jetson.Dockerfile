# gcpp-edge on a Jetson with JetPack 6 (Jetson Linux 36.4: CUDA 12.6, TensorRT 10.3, Python 3.10).
#
#   sudo docker build -f docker/jetson.Dockerfile -t gcpp-edge:jetson .
#   sudo docker run --rm --runtime nvidia -v ~/models:/models -v gcpp-cache:/cache gcpp-edge:jetson doctor
#
# Build it on the board: the base image is arm64. It has never been built by its authors, who had no board: what can be
# checked on paper is, the rest is yours to report. For JetPack 7 give --build-arg BASE=, an arm64 image with CUDA 13, nvcc,
# TensorRT and its Python module, and BINDINGS='cuda-bindings>=13,<14' and NUMPY='numpy>=1.24'.
ARG BASE=nvcr.io/nvidia/l4t-jetpack:r36.4.0
FROM ${BASE}

ARG BINDINGS="cuda-bindings>=12.6,<13"
ARG NUMPY="numpy>=1.24,<2"
ENV DEBIAN_FRONTEND=noninteractive PATH=/opt/gcpp/bin:/usr/local/cuda/bin:$PATH CUDA_ROOT=/usr/local/cuda

# TensorRT is in the base image, with its Python module; OpenCV for Python is Ubuntu's, which has GStreamer.
RUN apt-get update && apt-get install -y --no-install-recommends \
        build-essential python3-dev python3-venv python3-opencv && \
    rm -rf /var/lib/apt/lists/*
RUN python3 -m venv --system-site-packages /opt/gcpp && pip install --no-cache-dir "setuptools>=77" wheel "$NUMPY"

# PyCUDA from source. While an image is built the driver's library is not there (the runtime brings it), so PyCUDA links
# against an empty one of the same name.
WORKDIR /tmp/pycuda
RUN pip download --no-deps --no-binary :all: --no-build-isolation pycuda && tar xf pycuda-*.tar.gz --strip-components=1 && \
    mkdir stub && gcc -shared -Wl,-soname,libcuda.so.1 -o stub/libcuda.so -x c /dev/null && \
    python configure.py --no-cuda-enable-curand --cuda-root=/usr/local/cuda --cudadrv-lib-dir=/tmp/pycuda/stub && \
    pip install --no-cache-dir --no-build-isolation . && rm -rf /tmp/pycuda

# This package: nvcc compiles its CUDA kernels here. The parts of the extra `cli` but OpenCV, which is the system's.
WORKDIR /src
COPY . .
RUN pip install --no-cache-dir "$BINDINGS" typer rich aiohttp "$NUMPY" && pip install --no-cache-dir . && rm -rf /src/build

# Engines are built on the board at the first load and kept: mount a volume here.
ENV GCPP_EDGE_CACHE=/cache
VOLUME /cache
WORKDIR /models
ENTRYPOINT ["gcpp-edge"]
CMD ["doctor"]
