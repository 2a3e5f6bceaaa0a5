cimport cython


@cython.final
cdef class Abi4:
    pass
