"""The Allen-Cahn equation, whose solution forms plateaus with sharp edges: Adam, then SSBroyden.

    u_t = 1e-4 u_xx + 5 (u - u^3)        -1 <= x <= 1, 0 <= t <= 1, periodic
    u0 = x^2 cos(pi x) at t = 0

u0 has a kink where the period begins again, and the solution has lost it soon: near u = -1 what differs from -1 decays
like exp(-10 t). The construction of the network does the same with u0, so that the kink is not carried on. There is no
formula for the solution; the error is measured against a spectral method with 512 Fourier modes.

    python docs/examples/allen_cahn.py
    python docs/examples/allen_cahn.py 0.1     a tenth of the steps
"""

import sys

import keras
import numpy as np

import trainloop as tl

D = 1e-4


def build(widths=(30, 30, 30)):
    """u of points (x, t): e u0 + (1 - e) N(t, cos pi x, sin pi x), e = exp(-10 t)."""
    p = keras.Input([2])
    x, t = p[:, :1], p[:, 1:]
    cos, decay = keras.ops.cos(np.pi * x), keras.ops.exp(-10 * t)
    h = keras.layers.Concatenate()([t, cos, keras.ops.sin(np.pi * x)])
    for width in widths:
        h = keras.layers.Dense(width, "tanh")(h)
    return keras.Model(p, decay * x**2 * cos + (1 - decay) * keras.layers.Dense(1)(h))


def pde(model, p):
    """u_t - 1e-4 u_xx - 5 (u - u^3) at points p [N, 2]."""
    u, u_t, u_xx = tl.derivatives(model, p, [(1,), (0, 0)])
    return (u_t - D * u_xx - 5 * (u - u**3))[:, 0]


def spectral(modes=512, steps=1_000, every=20):
    """(points [N, 2], u [N]): a Fourier method in x, the classical method of Runge and Kutta in t."""
    x, dt = np.arange(modes) * 2 / modes - 1, 1 / steps
    diffusion = -D * (np.pi * np.fft.rfftfreq(modes, 1 / modes)) ** 2

    def slope(u):
        return np.fft.irfft(diffusion * np.fft.rfft(u), modes) + 5 * (u - u**3)

    u, kept = x**2 * np.cos(np.pi * x), []
    for i in range(steps + 1):
        if i % every == 0:
            kept.append((np.stack([x, np.full(modes, i * dt)], axis=1), u))
        k1 = slope(u)
        k2 = slope(u + dt / 2 * k1)
        k3 = slope(u + dt / 2 * k2)
        u = u + dt / 6 * (k1 + 2 * k2 + 2 * k3 + slope(u + dt * k3))
    return tuple(map(np.concatenate, zip(*kept, strict=True)))


def main(scale=1.0, seed=5):
    """Solve it with this share of 1,000 + 9,000 steps, on 10,000 points or fewer, and return the relative L2 error."""
    keras.config.set_floatx("float64")
    keras.config.set_dtype_policy("float64")
    keras.utils.set_random_seed(seed)
    model, (p, u) = build(), spectral()
    count, adam, after = int(10_000 * scale**0.5), int(1_000 * scale), int(9_000 * scale)

    rate = keras.optimizers.schedules.ExponentialDecay(5e-3, 1_000, 0.98)
    phases = [tl.Phase(tl.Adam(rate), steps=adam), tl.Phase(tl.SSBroyden(), steps=after)]
    hooks = [
        tl.Resample("pde", every_steps=max(1, after // 20), candidates=5 * count),
        tl.Measure(every_steps=max(1, after // 9), rel_l2=lambda model: relative(model, p, u)),
    ]
    loop = tl.TrainLoop(model, phases, residuals={"pde": pde}, hooks=hooks)
    result = loop.run(tl.Points({"pde": tl.Box([-1, 0], [1, 1], count)}, seed=seed))

    columns = [result.history[name] for name in ("step", "loss", "rel_l2")]
    for step, loss, error in zip(*columns, strict=True):
        if np.isfinite(error):
            print(f"step {step:6,}  loss {loss:.2e}  relative L2 {error:.2e}")
    error = relative(model, p, u)
    print(f"{result.message}; {result.seconds:.0f} s, relative L2 error {error:.2e}")
    return error


def relative(model, p, u):
    """|u(p) - u| / |u|."""
    return float(np.linalg.norm(np.asarray(model(p))[:, 0] - u) / np.linalg.norm(u))


if __name__ == "__main__":
    main(*map(float, sys.argv[1:2]))
