"""The measuring instrument behind `gcpp-edge bench`; scripts measure with it too.

    sampling     runs in turn, in an order that moves on, after a warm-up by time
    summary      what many times come to: minimum, mean, median, percentiles, medians of parts of the run
    subject      an explained model's levels as runs, from a frame to a finished overlay
    gpu_stages   the same work on a GPU, stage by stage
    measure      one model on one backend: all of this together
    cold         load, build and first frame, in processes of their own
    machine      processor, power mode, versions: what a figure depends on
    gpu_clock    the GPU's clock, and what holds it down
    conditions   what happened to the machine meanwhile: clocks, other processes, throttling
    stability    what makes a run not to be believed, in words
    results      the document that is saved, and loaded again
    comparison   two documents: what became slower or faster beyond the noise
    plot         a picture of a document (matplotlib)

All of it but `plot` needs NumPy alone. Times are milliseconds of wall time.
"""
