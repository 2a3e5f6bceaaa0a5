cimport cython


@cython.final
cdef class Abi1:
    pass
