"""Folding compiled by numba, for models of millions of parameters: one pass over memory where NumPy needs three.

Imported only when a model is large enough to pay for it: numba takes half a second and 70 MB, and compiling a second.
Every element is added in the order of the updates, so the sums are bit for bit those of NumPy's products and sums.
"""

from numba import float32, float64, njit, types, void

UPDATE = types.Array(float32, 1, "C", readonly=True)
FOLD_1 = void(float64[::1], UPDATE, float64)
FOLD_4 = void(float64[::1], UPDATE, UPDATE, UPDATE, UPDATE, float64, float64, float64, float64)


@njit(FOLD_1, nogil=True)
def fold_1(total, a, weight_a):  # type: ignore[no-untyped-def]
    """total += weight_a * a, in place."""
    for i in range(total.size):
        total[i] += a[i] * weight_a


@njit(FOLD_4, nogil=True)
def fold_4(total, a, b, c, d, weight_a, weight_b, weight_c, weight_d):  # type: ignore[no-untyped-def]
    """total += weight_a * a, then b, c and d, reading and writing `total` once."""
    for i in range(total.size):
        total[i] = total[i] + a[i] * weight_a + b[i] * weight_b + c[i] * weight_c + d[i] * weight_d
