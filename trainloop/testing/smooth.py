"""Smooth test problems, almost all of them sums of squares from one classical collection.

Moré, Garbow and Hillstrom (1981), "Testing unconstrained optimization software", ACM TOMS 7(1), 17-41, below MGH
with the number of the problem. Each function here is the vector of residuals r [m] in their notation, with x1 for
their x_1; f = sum r_i^2. Starting points are theirs. They print minima with six digits; the other digits are
SciPy's, as the tests reproduce.

What the problems are good for: narrow curved valleys (Rosenbrock, Wood, helical valley), a singular Hessian at the
minimiser (Powell), bad scaling (the quadratic, Brown, Meyer, Osborne), steep walls (Jennrich-Sampson, Brown-Dennis)
and more than one minimum (Freudenstein-Roth, trigonometric, Biggs, chained Rosenbrock).
"""

import math

import numpy as np
import tensorflow as tf

from trainloop.testing.problem import Problem, least_squares

_MGH = "Moré, Garbow and Hillstrom (1981), problem {}"


def extended_rosenbrock(n: int) -> Problem:
    """n / 2 separate valleys:  r_(2i-1) = 10 (x_2i - x_(2i-1)^2),  r_2i = 1 - x_(2i-1).   MGH 21, for n = 2 MGH 1.

    Args:
        n: even and positive.

    Returns:
        A `Problem` with minimum 0 at ones, starting from (-1.2, 1, -1.2, 1, ...).

    Examples:
        >>> testing.extended_rosenbrock(4).x0
        array([-1.2,  1. , -1.2,  1. ])
    """
    if n < 2 or n % 2:
        raise ValueError(f"n must be even and positive, received {n}: every valley needs two variables")

    def residuals(x):
        odd, even = x[0::2], x[1::2]
        return tf.concat([10 * (even - tf.square(odd)), 1 - odd], 0)

    start = np.tile([-1.2, 1.0], n // 2)
    return least_squares("extended_rosenbrock", residuals, start, minimiser=np.ones(n), source=_MGH.format(21))


def chained_rosenbrock(n: int) -> Problem:
    """One valley through all variables:  f = sum_(i<n) 100 (x_(i+1) - x_i^2)^2 + (1 - x_i)^2.

    For n >= 4 there is a second, local minimum near (-1, 1, ..., 1); its value for n = 10 is recorded. From the
    start at -ones, as in CUTE's CHNROSNB, SciPy's methods reach ones. The start of Lukšan and Vlček (1999),
    -1.2 and 1 in turn, leads its BFGS to the local minimum.

    Args:
        n: at least 2.

    Returns:
        A `Problem` with minimum 0 at ones.

    Examples:
        >>> valley = testing.chained_rosenbrock(10)
        >>> float(valley.fun(tf.ones(10))), valley.minimum
        (0.0, 0.0)
    """
    if n < 2:
        raise ValueError(f"n must be at least 2, received {n}: the chain has n - 1 links")

    def residuals(x):
        return tf.concat([10 * (x[1:] - tf.square(x[:-1])), 1 - x[:-1]], 0)

    return least_squares(
        "chained_rosenbrock",
        residuals,
        -np.ones(n),
        minimiser=np.ones(n),
        other_minima=(3.986579112347137,) if n == 10 else (),
        source="Toint (1978), Mathematics of Computation 32, 839-851",
    )


def _quadratic():
    """r = diag(sqrt d) Q (x - x*): eigenvalues d from 1 to 1e6 in equal ratios, in directions unlike the axes."""
    n, condition = 50, 1e6
    Q = np.linalg.qr(np.random.default_rng(0).standard_normal((n, n)))[0]
    root = np.geomspace(1, math.sqrt(condition), n)[:, np.newaxis] * Q
    minimiser = np.ones(n)

    def residuals(x):
        return tf.linalg.matvec(tf.constant(root, x.dtype), x - tf.constant(minimiser, x.dtype))

    return least_squares(
        "quadratic", residuals, np.zeros(n), convex=True, minimiser=minimiser, source="convex quadratic, condition 1e6"
    )


def _powell_singular(x):
    """The Hessian at 0 has rank 2."""
    x1, x2, x3, x4 = tf.unstack(x, 4)
    return tf.stack(
        [x1 + 10 * x2, math.sqrt(5) * (x3 - x4), tf.square(x2 - 2 * x3), math.sqrt(10) * tf.square(x1 - x4)]
    )


def _wood(x):
    x1, x2, x3, x4 = tf.unstack(x, 4)
    return tf.stack(
        [
            10 * (x2 - tf.square(x1)),
            1 - x1,
            math.sqrt(90) * (x4 - tf.square(x3)),
            1 - x3,
            math.sqrt(10) * (x2 + x4 - 2),
            (x2 - x4) / math.sqrt(10),
        ]
    )


def _beale(x):
    """r_i = y_i - x1 (1 - x2^i)."""
    x1, x2 = tf.unstack(x, 2)
    y = tf.constant([1.5, 2.25, 2.625], x.dtype)
    return y - x1 * (1 - tf.stack([x2, x2 * x2, x2 * x2 * x2]))


def _freudenstein_roth(x):
    x1, x2 = tf.unstack(x, 2)
    return tf.stack([-13 + x1 + ((5 - x2) * x2 - 2) * x2, -29 + x1 + ((x2 + 1) * x2 - 14) * x2])


def _brown_badly_scaled(x):
    x1, x2 = tf.unstack(x, 2)
    return tf.stack([x1 - 1e6, x2 - 2e-6, x1 * x2 - 2])


def _jennrich_sampson(x):
    """r_i = 2 + 2 i - (exp(i x1) + exp(i x2)),  i = 1..10."""
    x1, x2 = tf.unstack(x, 2)
    i = _one_to(10, x)
    return 2 + 2 * i - (tf.exp(i * x1) + tf.exp(i * x2))


def _helical_valley(x):
    """r = (10 (x3 - 10 theta), 10 (sqrt(x1^2 + x2^2) - 1), x3),  2 pi theta the angle of (x1, x2) in (-pi/2, 3 pi/2).

    MGH write theta with arctan(x2 / x1), separately for both signs of x1. The form here has the same values, also
    for x1 = 0, and like theirs jumps where x1 = 0 and x2 < 0. On the axis x1 = x2 = 0 it takes theta = 0 and the
    slope of x3 alone, since angle and radius have none.
    """
    x1, x2, x3 = tf.unstack(x, 3)
    on_axis = tf.equal(x1, 0) & tf.equal(x2, 0)
    safe = tf.where(on_axis, tf.ones_like(x1), x1)  # tf.where passes on the NaN slope of a branch it does not take
    theta = 0.25 + tf.atan2(-safe, x2) / (2 * math.pi)
    radius = tf.where(on_axis, tf.zeros_like(x1), tf.sqrt(tf.square(safe) + tf.square(x2)))
    return tf.stack([10 * (x3 - 10 * theta), 10 * (radius - 1), x3])


def _bard(x):
    """r_i = y_i - (x1 + u_i / (v_i x2 + w_i x3)),  u_i = i,  v_i = 16 - i,  w_i = min(u_i, v_i)."""
    x1, x2, x3 = tf.unstack(x, 3)
    u = _one_to(15, x)
    v = 16 - u
    y = tf.constant([0.14, 0.18, 0.22, 0.25, 0.29, 0.32, 0.35, 0.39, 0.37, 0.58, 0.73, 0.96, 1.34, 2.10, 4.39], x.dtype)
    return y - (x1 + u / (v * x2 + tf.minimum(u, v) * x3))


def _gaussian(x):
    """r_i = x1 exp(-x2 (t_i - x3)^2 / 2) - y_i,  t_i = (8 - i) / 2,  i = 1..15."""
    x1, x2, x3 = tf.unstack(x, 3)
    half = [0.0009, 0.0044, 0.0175, 0.0540, 0.1295, 0.2420, 0.3521]
    y = tf.constant([*half, 0.3989, *half[::-1]], x.dtype)
    t = (8 - _one_to(15, x)) / 2
    return x1 * tf.exp(-x2 * tf.square(t - x3) / 2) - y


def _meyer(x):
    """r_i = x1 exp(x2 / (t_i + x3)) - y_i,  t_i = 45 + 5 i,  i = 1..16."""
    x1, x2, x3 = tf.unstack(x, 3)
    y = tf.constant(
        [34780, 28610, 23650, 19630, 16370, 13720, 11540, 9744, 8261, 7030, 6005, 5147, 4427, 3820, 3307, 2872], x.dtype
    )
    return x1 * tf.exp(x2 / (45 + 5 * _one_to(16, x) + x3)) - y


def _box(x):
    """r_i = exp(-t_i x1) - exp(-t_i x2) - x3 (exp(-t_i) - exp(-10 t_i)),  t_i = i / 10,  i = 1..10."""
    x1, x2, x3 = tf.unstack(x, 3)
    t = _one_to(10, x) / 10
    return tf.exp(-t * x1) - tf.exp(-t * x2) - x3 * (tf.exp(-t) - tf.exp(-10 * t))


def _kowalik_osborne(x):
    """r_i = y_i - x1 (u_i^2 + u_i x2) / (u_i^2 + u_i x3 + x4)."""
    x1, x2, x3, x4 = tf.unstack(x, 4)
    u = tf.constant([4, 2, 1, 0.5, 0.25, 0.167, 0.125, 0.1, 0.0833, 0.0714, 0.0625], x.dtype)
    y = tf.constant([0.1957, 0.1947, 0.1735, 0.1600, 0.0844, 0.0627, 0.0456, 0.0342, 0.0323, 0.0235, 0.0246], x.dtype)
    return y - x1 * (u * u + u * x2) / (u * u + u * x3 + x4)


def _brown_dennis(x):
    """r_i = (x1 + t_i x2 - exp t_i)^2 + (x3 + x4 sin t_i - cos t_i)^2,  t_i = i / 5,  i = 1..20."""
    x1, x2, x3, x4 = tf.unstack(x, 4)
    t = _one_to(20, x) / 5
    return tf.square(x1 + t * x2 - tf.exp(t)) + tf.square(x3 + x4 * tf.sin(t) - tf.cos(t))


def _osborne_1(x):
    """r_i = y_i - (x1 + x2 exp(-t_i x4) + x3 exp(-t_i x5)),  t_i = 10 (i - 1),  i = 1..33."""
    x1, x2, x3, x4, x5 = tf.unstack(x, 5)
    y = tf.constant(_OSBORNE_1, x.dtype)
    t = 10 * (_one_to(33, x) - 1)
    return y - (x1 + x2 * tf.exp(-t * x4) + x3 * tf.exp(-t * x5))


_OSBORNE_1 = [
    *(0.844, 0.908, 0.932, 0.936, 0.925, 0.908, 0.881, 0.850, 0.818, 0.784, 0.751),
    *(0.718, 0.685, 0.658, 0.628, 0.603, 0.580, 0.558, 0.538, 0.522, 0.506, 0.490),
    *(0.478, 0.467, 0.457, 0.448, 0.438, 0.431, 0.424, 0.420, 0.414, 0.411, 0.406),
]


def _biggs_exp6(x):
    """r_i = x3 exp(-t_i x1) - x4 exp(-t_i x2) + x6 exp(-t_i x5) - y_i,  t_i = i / 10,  i = 1..13.

    y_i = exp(-t_i) - 5 exp(-10 t_i) + 3 exp(-4 t_i). The start has x1 = x5 and x3 = x6, the gradient keeps it so, and
    the smallest value there, 5.65565e-3, belongs to a saddle.
    """
    x1, x2, x3, x4, x5, x6 = tf.unstack(x, 6)
    t = _one_to(13, x) / 10
    y = tf.exp(-t) - 5 * tf.exp(-10 * t) + 3 * tf.exp(-4 * t)
    return x3 * tf.exp(-t * x1) - x4 * tf.exp(-t * x2) + x6 * tf.exp(-t * x5) - y


def _watson(x):
    """r_i = p'(t_i) - p(t_i)^2 - 1,  t_i = i / 29,  i = 1..29;  r_30 = x1,  r_31 = x2 - x1^2 - 1.   n = 6.

    p(t) = sum_j x_j t^(j-1).
    """
    t = np.arange(1, 30)[:, np.newaxis] / 29
    j = np.arange(6)
    powers = t**j  # [29, 6]
    slopes = j * t ** np.maximum(j - 1, 0)
    p = tf.linalg.matvec(tf.constant(powers, x.dtype), x)
    dp = tf.linalg.matvec(tf.constant(slopes, x.dtype), x)
    return tf.concat([dp - tf.square(p) - 1, [x[0], x[1] - tf.square(x[0]) - 1]], 0)


def _penalty_1(x):
    """r_i = sqrt(1e-5) (x_i - 1),  i = 1..n;  r_(n+1) = sum x_j^2 - 1/4."""
    return tf.concat([math.sqrt(1e-5) * (x - 1), [tf.reduce_sum(tf.square(x)) - 0.25]], 0)


def _variably_dimensioned(x):
    """r_i = x_i - 1,  i = 1..n;  r_(n+1) = s,  r_(n+2) = s^2  for s = sum_j j (x_j - 1).   n = 10."""
    s = tf.tensordot(_one_to(10, x), x - 1, 1)
    return tf.concat([x - 1, [s, tf.square(s)]], 0)


def _trigonometric(x):
    """r_i = n - sum_j cos x_j + i (1 - cos x_i) - sin x_i.   n = 10."""
    cos = tf.cos(x)
    return 10 - tf.reduce_sum(cos) + _one_to(10, x) * (1 - cos) - tf.sin(x)


def _broyden_tridiagonal(x):
    """r_i = (3 - 2 x_i) x_i - x_(i-1) - 2 x_(i+1) + 1,  x_0 = x_(n+1) = 0."""
    left, right = _neighbours(x)
    return (3 - 2 * x) * x - left - 2 * right + 1


def _discrete_boundary_value(x):
    """r_i = 2 x_i - x_(i-1) - x_(i+1) + h^2 (x_i + t_i + 1)^3 / 2,  t_i = i h,  h = 1 / (n + 1).   n = 10."""
    left, right = _neighbours(x)
    cube = x + _one_to(10, x) / 11 + 1
    return 2 * x - left - right + cube * cube * cube / (2 * 11**2)


def _linear_full_rank(x):
    """r_i = x_i - (2 / m) sum_j x_j - 1 with x_i = 0 for i > n.   n = 10, m = 20."""
    return tf.pad(x, [[0, 10]]) - tf.reduce_sum(x) / 10 - 1


def _one_to(m, x):
    """(1, 2, ..., m) in the dtype of x."""
    return tf.constant(np.arange(1, m + 1), x.dtype)


def _neighbours(x):
    """(x_(i-1)) and (x_(i+1)) for i = 1..n with zeros beyond the ends, each [n]."""
    padded = tf.pad(x, [[1, 1]])
    return padded[:-2], padded[2:]


def _mgh(number, name, residuals, x0, minimum=0.0, **kwargs):
    return least_squares(name, residuals, x0, minimum, source=_MGH.format(number), **kwargs)


_TEN = np.arange(1, 11)

SMOOTH = [
    _quadratic(),
    extended_rosenbrock(10),
    chained_rosenbrock(10),
    _mgh(13, "powell_singular", _powell_singular, [3, -1, 0, 1], convex=True, minimiser=np.zeros(4)),
    _mgh(14, "wood", _wood, [-3, -1, -3, -1], minimiser=np.ones(4)),
    _mgh(5, "beale", _beale, [1, 1], minimiser=[3, 0.5]),
    _mgh(7, "helical_valley", _helical_valley, [-1, 0, 0], minimiser=[1, 0, 0]),
    _mgh(2, "freudenstein_roth", _freudenstein_roth, [0.5, -2], minimiser=[5, 4], other_minima=(48.98425367924,)),
    _mgh(4, "brown_badly_scaled", _brown_badly_scaled, [1, 1], minimiser=[1e6, 2e-6]),
    _mgh(6, "jennrich_sampson", _jennrich_sampson, [0.3, 0.4], 124.3621823556148),
    _mgh(8, "bard", _bard, np.ones(3), 0.008214877306578968, other_minima=(17.428693333333335,)),
    _mgh(9, "gaussian", _gaussian, [0.4, 1, 0], 1.1279327696186e-08),
    _mgh(10, "meyer", _meyer, [0.02, 4000, 250], 87.94585517085112),
    _mgh(12, "box", _box, [0, 10, 20], minimiser=[1, 10, 1]),
    _mgh(
        15,
        "kowalik_osborne",
        _kowalik_osborne,
        [0.25, 0.39, 0.415, 0.39],
        0.0003075056038492369,
        other_minima=(0.0010273430486954574,),
    ),
    _mgh(16, "brown_dennis", _brown_dennis, [25, 5, -5, -1], 85822.2016263563, convex=True),
    _mgh(17, "osborne_1", _osborne_1, [0.5, 1.5, -1, 0.01, 0.02], 5.46489469748275e-05),
    _mgh(
        18,
        "biggs_exp6",
        _biggs_exp6,
        [1, 2, 1, 1, 1, 1],
        minimiser=[1, 10, 1, 5, 4, 3],
        other_minima=(0.005655649925499943,),
    ),
    _mgh(20, "watson", _watson, np.zeros(6), 0.0022876700535524),
    _mgh(23, "penalty_1", _penalty_1, _TEN, 7.08765146709037e-05),
    _mgh(25, "variably_dimensioned", _variably_dimensioned, 1 - _TEN / 10, convex=True, minimiser=np.ones(10)),
    _mgh(
        26,
        "trigonometric",
        _trigonometric,
        np.full(10, 0.1),
        minimiser=np.zeros(10),
        other_minima=(2.79505612187846e-05,),
    ),
    _mgh(30, "broyden_tridiagonal", _broyden_tridiagonal, -np.ones(10)),
    _mgh(28, "discrete_boundary_value", _discrete_boundary_value, _TEN / 11 * (_TEN / 11 - 1)),
    _mgh(32, "linear_full_rank", _linear_full_rank, np.ones(10), 10.0, convex=True, minimiser=-np.ones(10)),
]
