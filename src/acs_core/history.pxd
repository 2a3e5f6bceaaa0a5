cimport cython

from acs_core.abi cimport Abi4
from acs_core.events cimport QueueSpec
from acs_core.load cimport QueueLoad


@cython.final
cdef class RunHistory:
    cdef object _opened
    cdef dict _namespaces
    @cython.locals(key=tuple, before=QueueLoad, load=QueueLoad, guess_us='long long')
    cpdef QueueLoad open(self, QueueSpec spec, long long now_us, long long history_us)
    @cython.locals(load=QueueLoad, known=list)
    cpdef long long typical_us(self, str namespace)
