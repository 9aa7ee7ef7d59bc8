# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""The C kernels behind the interface of reference.py. Thin: arguments have been checked (arguments.py).

Arrays cross as raw buffers, since float16 has no typed memoryview; the GIL is released while C works.
"""

from cpython.buffer cimport PyBUF_STRIDES, PyBUF_WRITABLE, Py_buffer, PyBuffer_Release, PyObject_GetBuffer
from libc.stdint cimport int32_t, int64_t, uint8_t

from gcpp_edge.kernels import reference

cdef extern from "gcpp.h" nogil:
    ctypedef enum gcpp_dtype:
        GCPP_FLOAT32, GCPP_FLOAT16, GCPP_UINT8

    ctypedef enum gcpp_rule:
        GCPP_GRADCAM, GCPP_GRADCAM_PLUS_PLUS, GCPP_GRADCAM_PLUS_PLUS_SIGNED

    ctypedef enum gcpp_format:
        GCPP_BGR, GCPP_RGB, GCPP_BGRA, GCPP_RGBA, GCPP_GRAY, GCPP_GRAY16, GCPP_NV12

    ctypedef struct gcpp_rows:
        pass

    ctypedef struct gcpp_axis:
        double scale, offset
        int32_t start, stop

    ctypedef struct gcpp_map:
        const float *values
        int32_t height, width
        gcpp_axis rows, columns
        double low, high

    ctypedef struct gcpp_picture:
        uint8_t *pixels
        int32_t height, width, channels
        ptrdiff_t row_stride_bytes

    ctypedef struct gcpp_cam_arguments:
        const void *activations
        const void *gradients
        float *out
        float *weights
        int64_t *poles
        ptrdiff_t batch, targets, channels, positions
        gcpp_dtype activations_dtype, gradients_dtype
        gcpp_rule rule
        int constant_gradients, relu
        float gradient_scale

    ctypedef struct gcpp_preprocess_arguments:
        const uint8_t *frame
        ptrdiff_t row_stride_bytes
        int32_t height, width
        gcpp_format format, color
        gcpp_axis rows, columns
        const float *scale
        const float *bias
        const float *fill
        void *out
        int32_t out_height, out_width
        gcpp_dtype out_dtype

    const gcpp_rows *gcpp_rows_for(const char *isa)
    void gcpp_cam(const gcpp_rows *, const gcpp_cam_arguments *)
    int gcpp_heatmap(const gcpp_rows *, int32_t, const gcpp_map *, void *, gcpp_dtype, int32_t, int32_t)
    int gcpp_overlay(const gcpp_rows *, int32_t, const gcpp_map *, const gcpp_picture *, const uint8_t *, double, double,
                     const gcpp_picture *)
    int gcpp_guided(const gcpp_rows *, int32_t, const gcpp_map *, const void *, gcpp_dtype, float *, int32_t, int32_t,
                    int32_t)
    int gcpp_preprocess(const gcpp_rows *, int32_t, const gcpp_preprocess_arguments *)

BEST_FIRST = ("avx512vbmi", "avx512", "avx2", "neon", "scalar")

cdef dict RULES = {
    "gradcam": GCPP_GRADCAM,
    "gradcam++": GCPP_GRADCAM_PLUS_PLUS,
    "gradcam++-signed": GCPP_GRADCAM_PLUS_PLUS_SIGNED,
}
cdef dict FORMATS = {
    "bgr": GCPP_BGR,
    "rgb": GCPP_RGB,
    "bgra": GCPP_BGRA,
    "rgba": GCPP_RGBA,
    "gray": GCPP_GRAY,
    "gray16": GCPP_GRAY16,
    "nv12": GCPP_NV12,
}
cdef dict DTYPES = {"f": GCPP_FLOAT32, "e": GCPP_FLOAT16, "B": GCPP_UINT8}


def available():
    """The instruction sets that this build and this machine have, best first."""
    return tuple(isa for isa in BEST_FIRST if gcpp_rows_for(isa.encode()) is not NULL)


cdef class Buffer:
    """A hold on the memory of an array, for as long as C works on it."""

    cdef Py_buffer view
    cdef bint held

    def __cinit__(self, array, bint writable=False):
        self.held = False
        PyObject_GetBuffer(array, &self.view, PyBUF_STRIDES | (PyBUF_WRITABLE if writable else 0))
        self.held = True

    def __dealloc__(self):
        if self.held:
            PyBuffer_Release(&self.view)

    cdef int32_t size(self, int axis) noexcept nogil:
        return <int32_t>self.view.shape[axis]


cdef class Kernels:
    """The kernels for one instruction set of available(), on up to `threads` threads."""

    cdef const gcpp_rows *rows
    cdef int32_t threads

    def __cinit__(self, str isa, int32_t threads=1):
        self.threads = threads
        self.rows = gcpp_rows_for(isa.encode())
        if self.rows is NULL:
            raise ValueError(f"instruction set {isa!r} is not one of {available()}")

    def cam(self, activations, gradients, rule, relu, out, weights=None, float gradient_scale=1, poles=None):
        cdef Buffer a = Buffer(activations), g = Buffer(gradients), o = Buffer(out, True)
        cdef Buffer w = None if weights is None else Buffer(weights, True)
        cdef Buffer p = None if poles is None else Buffer(poles, True)
        cdef gcpp_cam_arguments arguments
        arguments.activations = a.view.buf
        arguments.gradients = g.view.buf
        arguments.out = <float *>o.view.buf
        arguments.weights = NULL if w is None else <float *>w.view.buf
        arguments.poles = NULL if p is None else <int64_t *>p.view.buf
        arguments.batch = a.view.shape[0]
        arguments.targets = g.view.shape[1] if g.view.ndim > a.view.ndim else 1
        arguments.channels = a.view.shape[1]
        arguments.positions = _product(&a.view, 2)
        arguments.activations_dtype = DTYPES[activations.dtype.char]
        arguments.gradients_dtype = DTYPES[gradients.dtype.char]
        arguments.rule = RULES[rule]
        arguments.constant_gradients = _product(&g.view, g.view.ndim - a.view.ndim + 2) != arguments.positions
        arguments.relu = relu
        arguments.gradient_scale = gradient_scale
        with nogil:
            gcpp_cam(self.rows, &arguments)

    def range(self, map, zero_low, out):
        reference.range(map, zero_low, out)  # a small map: NumPy is as fast

    def heatmap(self, map, rows, columns, double low, double high, out, limits=None):
        if limits is not None:
            low, high = limits
        cdef Buffer m = Buffer(map), o = Buffer(out, True)
        cdef gcpp_map small = _map(m, rows, columns, low, high, o.size(0), o.size(1))
        cdef gcpp_dtype dtype = DTYPES[out.dtype.char]
        cdef int status
        with nogil:
            status = gcpp_heatmap(self.rows, self.threads, &small, o.view.buf, dtype, o.size(0), o.size(1))
        _raise_for(status)

    def overlay(self, frame, map, rows, columns, double low, double high, palette, double alpha, double dim, out, limits=None):
        if limits is not None:
            low, high = limits
        cdef Buffer f = Buffer(frame), m = Buffer(map), p = Buffer(palette), o = Buffer(out, True)
        cdef gcpp_map small = _map(m, rows, columns, low, high, f.size(0), f.size(1))
        cdef gcpp_picture source = _picture(f), destination = _picture(o)
        cdef int status
        with nogil:
            status = gcpp_overlay(self.rows, self.threads, &small, &source, <const uint8_t *>p.view.buf, alpha, dim, &destination)
        _raise_for(status)

    def guided(self, map, rows, columns, double low, double high, image, out, limits=None):
        if limits is not None:
            low, high = limits
        cdef Buffer m = Buffer(map), i = Buffer(image), o = Buffer(out, True)
        cdef gcpp_map small = _map(m, rows, columns, low, high, o.size(1), o.size(2))
        cdef gcpp_dtype dtype = DTYPES[image.dtype.char]
        cdef int status
        with nogil:
            status = gcpp_guided(
                self.rows, self.threads, &small, i.view.buf, dtype, <float *>o.view.buf, o.size(0), o.size(1), o.size(2)
            )
        _raise_for(status)

    def preprocess(self, frame, format, rows, columns, color, scale, bias, fill, out):
        cdef Buffer f = Buffer(frame), o = Buffer(out, True)
        cdef Buffer s = Buffer(scale), b = Buffer(bias), l = Buffer(fill)
        cdef gcpp_preprocess_arguments arguments
        cdef int status
        arguments.frame = <const uint8_t *>f.view.buf
        arguments.row_stride_bytes = f.view.strides[0]
        arguments.height = f.size(0) * 2 // 3 if format == "nv12" else f.size(0)
        arguments.width = f.size(1)
        arguments.format = FORMATS[format]
        arguments.color = FORMATS[color]
        arguments.rows = _axis(rows, o.size(1), arguments.height)
        arguments.columns = _axis(columns, o.size(2), arguments.width)
        arguments.scale = <const float *>s.view.buf
        arguments.bias = <const float *>b.view.buf
        arguments.fill = <const float *>l.view.buf
        arguments.out = o.view.buf
        arguments.out_height = o.size(1)
        arguments.out_width = o.size(2)
        arguments.out_dtype = DTYPES[out.dtype.char]
        with nogil:
            status = gcpp_preprocess(self.rows, self.threads, &arguments)
        _raise_for(status)


cdef ptrdiff_t _product(Py_buffer *view, int axis) noexcept:
    """Elements over the axes from `axis` on."""
    cdef ptrdiff_t product = 1
    cdef int i
    for i in range(axis, view.ndim):
        product *= view.shape[i]
    return product


cdef gcpp_axis _axis(axis, int32_t destination_size, int32_t source_size) except *:
    cdef gcpp_axis result
    result.scale = axis.scale
    result.offset = axis.offset
    result.start, result.stop = axis.seen(destination_size, source_size)
    return result


cdef gcpp_map _map(
    Buffer values, rows, columns, double low, double high, int32_t height, int32_t width
) except *:
    cdef gcpp_map result
    result.values = <const float *>values.view.buf
    result.height = values.size(0)
    result.width = values.size(1)
    result.rows = _axis(rows, height, result.height)
    result.columns = _axis(columns, width, result.width)
    result.low = low
    result.high = high
    return result


cdef gcpp_picture _picture(Buffer pixels) noexcept:
    cdef gcpp_picture result
    result.pixels = <uint8_t *>pixels.view.buf
    result.height = pixels.size(0)
    result.width = pixels.size(1)
    result.channels = pixels.size(2)
    result.row_stride_bytes = pixels.view.strides[0]
    return result


cdef _raise_for(int status):
    if status < 0:
        raise MemoryError("no memory for the scratch block of a kernel")
