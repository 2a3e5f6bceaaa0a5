cimport cython

from acs_core.abi cimport Abi4

cdef int _DURATION_SAMPLES


@cython.final
cdef class QueueLoad:
    cdef readonly double mean_us
    cdef readonly double variance
    cdef readonly Py_ssize_t samples
    cdef public long long typical_us
    cdef public long long runs_ended
    cdef public Py_ssize_t arrivals
    cdef readonly long long rate_since_us
    cdef readonly double rate_per_s
    cdef readonly long long steady_since_us
    cdef readonly long long steady_ended
    cdef readonly Py_ssize_t growth_containers
    cdef readonly double growth_rate_per_s
    cdef readonly int growths_in_vain
    @cython.locals(delta=double, smoothed=Py_ssize_t)
    cpdef object ran(self, long long run_us)
    @cython.locals(elapsed_us='long long', rate=double, weight=double, halvings='long long', rest=double)
    cpdef object update_rate(self, long long now_us, long long interval_us)
    cpdef long long steady_short_us(self, long long now_us)
    cpdef object note_steady(self, bint short, bint grew, long long now_us)
    cpdef object judge_growth(self, Py_ssize_t containers, long long hold_us, long long now_us)
