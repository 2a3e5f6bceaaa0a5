cimport cython


@cython.final
cdef class Abi3:
    pass
