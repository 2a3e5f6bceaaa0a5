cimport cython


@cython.final
cdef class Abi2:
    pass
