"""Build the driver against the installed core.

    pip install --no-build-isolation .

An isolated build would compile against the core that pip finds for it, not the one that is
installed; the ABI check at import tells when these differ.
"""

from Cython.Build import cythonize
from setuptools import Extension, setup

setup(
    name="acs-example-driver",
    version="1",
    py_modules=[],
    # Cython finds the declarations of acs_core where Python finds the package.
    ext_modules=cythonize(
        [Extension("driver", ["driver.pyx"])],
        compiler_directives={"language_level": "3"},
    ),
)
