cimport cython

from acs_core.events cimport Activation, QueueSpec


@cython.final
cdef class PushContainer:
    cdef public str container
    cdef public QueueSpec spec
    cdef public int warming
    cdef public Py_ssize_t assigned
    cdef public long long last_used_us
    cdef public int state
    cdef public bint initialised
    cdef public dict running
    cdef public Activation first
    cdef public object held
    cdef public long long idle_since_us
    cdef public str cause
