"""Standard normal numbers in blocks, fast enough to draw one per output of every VMM.

256 lanes of xoshiro128++ (Blackman and Vigna 2018, public domain) feed a Box-Muller transform whose logarithm, sine
and cosine are polynomials, so that the compiler turns each loop into vector instructions. The tails end at 5.8 sigma
(24-bit uniform numbers). Errors of the polynomials are below 2e-6. Tests compare moments, tails and distribution.
"""

from __future__ import annotations

import math

import numba as nb
import numpy as np
from numpy.typing import NDArray

#: Numbers made per call.
LANES = 256
_HALF = LANES // 2


def _fit(function: object, low: float, high: float, degree: int) -> tuple[np.float32, ...]:
    """Polynomial near-minimax fit on an interval, lowest power first."""
    fit = np.polynomial.Chebyshev.interpolate(function, degree, domain=[low, high])  # type: ignore[arg-type]
    return tuple(np.float32(c) for c in fit.convert(kind=np.polynomial.Polynomial).coef)


# log2 of a mantissa in [1, 2), about its middle; sin(pi x)/x and cos(pi x) as functions of x*x, |x| <= 1/2
_L0, _L1, _L2, _L3, _L4, _L5, _L6, _L7, _L8 = _fit(lambda y: np.log2(1.5 + y), -0.5, 0.5, 8)
_S0, _S1, _S2, _S3, _S4 = _fit(lambda q: np.pi * np.sinc(np.sqrt(q)), 0.0, 0.25, 4)
_C0, _C1, _C2, _C3, _C4 = _fit(lambda q: np.cos(np.pi * np.sqrt(q)), 0.0, 0.25, 4)


def new_state(rng: np.random.Generator) -> NDArray[np.uint32]:
    """Fresh generator state, shape (4, LANES)."""
    return rng.integers(1, 2**32, (4, LANES), dtype=np.uint32)


@nb.njit(fastmath=True, nogil=True, cache=True)
def fill_normal(state, raw, mantissa, mantissa_bits, exponent, out):  # type: ignore[no-untyped-def]
    """Fill `out` (LANES float32) with standard normal numbers and advance `state`.

    The other arrays are scratch of LANES items: `raw` uint32, `mantissa` float32 with `mantissa_bits` its int32 view,
    `exponent` float32.
    """
    s0, s1, s2, s3 = state[0], state[1], state[2], state[3]
    for k in range(LANES):
        a, b, c, d = s0[k], s1[k], s2[k], s3[k]
        t = np.uint32(a + d)
        raw[k] = np.uint32(np.uint32((t << np.uint32(7)) | (t >> np.uint32(25))) + a)
        t = np.uint32(b << np.uint32(9))
        c ^= a
        d ^= b
        b ^= c
        a ^= d
        c ^= t
        d = np.uint32((d << np.uint32(11)) | (d >> np.uint32(21)))
        s0[k], s1[k], s2[k], s3[k] = a, b, c, d
    for k in range(_HALF):
        # An odd 24-bit number over 2^24: never 0, never 1.
        mantissa[k] = np.float32(np.int32((raw[k] >> np.uint32(8)) | np.uint32(1))) * np.float32(2.0**-24)
    for k in range(_HALF):
        bits = mantissa_bits[k]
        exponent[k] = np.float32(((bits >> np.int32(23)) & np.int32(255)) - np.int32(127))
        mantissa_bits[k] = (bits & np.int32(0x7FFFFF)) | np.int32(0x3F800000)
    for k in range(_HALF):
        y = mantissa[k] - np.float32(1.5)
        log2 = exponent[k] + (
            _L0 + y * (_L1 + y * (_L2 + y * (_L3 + y * (_L4 + y * (_L5 + y * (_L6 + y * (_L7 + y * _L8)))))))
        )
        radius = np.float32(math.sqrt(max(np.float32(-2.0 * math.log(2.0)) * log2, np.float32(0.0))))
        angle = np.float32(np.int32(raw[_HALF + k])) * np.float32(2.0**-31)  # in units of pi, from -1 to 1
        x = abs(angle) - np.float32(0.5)
        q = x * x
        cos = -x * (_S0 + q * (_S1 + q * (_S2 + q * (_S3 + q * _S4))))
        sin = _C0 + q * (_C1 + q * (_C2 + q * (_C3 + q * _C4)))
        out[k] = radius * cos
        out[_HALF + k] = radius * (sin if angle >= 0 else -sin)
