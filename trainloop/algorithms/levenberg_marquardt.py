"""The Levenberg-Marquardt method: Gauss-Newton with damping.

    (A + M) h = -b              A = J'J, b = J'r for f = r'r; half of the Gauss-Newton matrix and of g elsewhere
    M = max(mu D^2, min_damping / 2)
    D^2 = s^p (max diag A)^(1 - p)                        s = running maximum of the diagonal of A
    rho = (f(x) - f(x + h)) / h'(M h - b)                 decrease over the decrease that the model predicts
    rho > 0:   x <- x + h,   mu <- mu max(1/3, 1 - (2 rho - 1)^3),   nu <- 2
    else:                    mu <- mu nu,                            nu <- 2 nu,   and h again from the same A

    mu = tau at the start.       Madsen, Nielsen and Tingleff (2004), algorithm 3.16; Nielsen (1999)

p = 1 is Marquardt's scaling (1963; the maximum is More's, 1978): the units of the parameters change no step, which
decides whether curves can be fitted. p = 0 is Levenberg's (1944), one unit for all. The weights of a network are
alike, and p = 1/2 served them best. The unit of f changes no step in any case. The run ends as converged where the
model promises to lower f by less than it can be resolved, h'(M h - b) <= eps f, or where f is at most eps^2 of what it
was at first.

On mini-batches A and rho belong to one batch, and as mu falls a step fits that batch and no other. A lower bound on
the damping limits how far it goes where A says little: h is at most g / min_damping there. Martens (2010), sections
4.1 and 4.6.

Where there are residuals and a factorisation, the step bends with them,

    h + a / 2   in place of h, if 2 |a| <= acceleration |h|,   |v|^2 = v'M v

with the a of `damped.acceleration`; the predicted decrease stays that of h. A long curved valley of f takes a fraction
of the steps then.   Transtrum and Sethna (2012).

How the system is solved is in `trainloop.linesearch.damped`. Where the diagonal of A is not known, D^2 is the curvature
along the first g.
"""

from typing import Any

import tensorflow as tf

from trainloop import checks
from trainloop.linesearch import damped
from trainloop.linesearch.trust_region import agreement
from trainloop.objectives.base import Objective
from trainloop.optimizer.contracts import GlobalObjectiveOptimizer
from trainloop.status import Status, first_failure
from trainloop.types import ObjectiveUpdate, State
from trainloop.vectors import linalg

# Trials in one step: the last of them is 2^66 times as much damped as the first.
_TRIALS = 12


class LevenbergMarquardt(GlobalObjectiveOptimizer):
    """Damped Gauss-Newton.   Levenberg (1944), Marquardt (1963), damping of Nielsen (1999).

    For objectives with residuals (`LeastSquares`, `residuals=...`, mean squared errors), whose Jacobian is computed in
    one vectorised pass, and for others with Gauss-Newton products, such as crossentropies. A step costs one Jacobian,
    or n products (factorised) or up to `max_products`, and one evaluation of f and g for each trial, of which all but
    the last are rejected; with acceleration one of the residuals too, and for each trial two more and a product with
    J'. A zero gradient, which a mini-batch may have, changes nothing. The run ends with `Status.CONVERGED`, or with
    `Status.STALLED` when h is too short to move x.

    Args:
        tau: damping at the start relative to D^2, positive. Small for a good starting point.
        scaling: p in [0, 1]; None for 1/2 where x are the weights of a model, and 1 elsewhere.
        min_damping: M is at least this, not negative; in units of the curvature of f. 0 for the whole data at once; on
            mini-batches of a network's mean loss about 0.3 to 1.
        solver: "qr", "cholesky" and "sample" factorise [J; M^(1/2)], A [n, n] and J M^-1 J' [m, m]; "cg" takes
            products. With residuals "auto" is "qr" up to 32 parameters, then "sample" for m < n and "cholesky", both up
            to 4000 rows, and "cg" beyond; without residuals "cholesky" up to 1000 parameters.
        max_products: per trial with "cg", at least 1.
        acceleration: up to which size a step is bent, relative to its length, see above; 0 for straight steps. None for
            0.75 where x are the weights of a model, and 0 elsewhere: the few parameters of a curve save steps by it,
            but mostly no evaluations. Without residuals and with "cg" steps are straight.
        name, kwargs: see `GlobalObjectiveOptimizer`.

    Examples:
        >>> t = np.linspace(0.0, 1.0, 20)
        >>> decay = LeastSquares(lambda p: p[0] * tf.exp(-p[1] * t) - 2 * np.exp(-3 * t))
        >>> minimize(decay, [1.0, 1.0], LevenbergMarquardt()).x.round(6)
        array([2., 3.])
    """

    ends_by_itself = True
    needs_digits = True
    left_out_of_config = ("scaling", "acceleration")

    def __init__(
        self,
        tau: float = 1e-3,
        solver: str = "auto",
        max_products: int = 100,
        min_damping: float = 0.0,
        scaling: float | None = None,
        acceleration: float | None = None,
        name: str = "levenberg_marquardt",
        **kwargs: Any,
    ) -> None:
        super().__init__(None, name=name, **kwargs)
        self.tau = checks.real("tau", tau, above=0)
        self.solver = damped.checked_solver(solver)
        self.max_products = checks.integer("max_products", max_products, at_least=1)
        self.min_damping = checks.real("min_damping", min_damping, at_least=0)
        self.acceleration = None if acceleration is None else checks.real("acceleration", acceleration, at_least=0)
        self.scaling = None if scaling is None else checks.real("scaling", scaling, at_least=0, at_most=1)

    def init_state(self, x: tf.Tensor) -> State:
        return {
            "damping": tf.zeros([], x.dtype),  # 0 until the first step has seen A
            "growth": tf.constant(2.0, x.dtype),
            "rho": tf.zeros([], x.dtype),
            "diagonal": tf.zeros_like(x),  # s
            "first_loss": tf.zeros([], x.dtype),
            "status": tf.constant(Status.RUNNING, tf.int32),
        }

    def update(self, x: tf.Tensor, f: tf.Tensor, g: tf.Tensor, state: State, objective: Objective) -> ObjectiveUpdate:
        system = damped.system(objective, x, g, self.solver, self.max_products)
        diagonal, scaling = self._scaled(system, state["diagonal"], x, g, objective)
        mu = tf.where(tf.equal(state["damping"], 0), tf.constant(self.tau, x.dtype), state["damping"])
        here = x, f, g
        trial = self._first_taken(here, system, scaling, (mu, state["growth"]), objective)
        slopes = tf.reduce_any(tf.not_equal(g, 0))
        first = tf.where(tf.equal(state["first_loss"], 0), f, state["first_loss"])
        vanished = trial.taken & (trial.f <= linalg.eps(x.dtype) ** 2 * first)
        return (
            trial.x,
            {
                "damping": tf.where(slopes, trial.mu, state["damping"]),
                "growth": tf.where(slopes, trial.nu, state["growth"]),
                "rho": trial.rho,
                "diagonal": diagonal,
                "first_loss": first,
                "status": first_failure(
                    (trial.unbounded, Status.UNBOUNDED),
                    (trial.stalled, Status.STALLED),
                    (trial.resolved | vanished, Status.CONVERGED),
                ),
            },
            (trial.f, trial.g),
        )

    def _scaled(self, system, before, x, g, objective):
        """(s [n], D^2 [n]), both positive."""
        if system.diagonal is None:
            unknown = tf.reduce_all(tf.equal(before, 0))
            along = tf.cond(unknown, lambda: _curvature_along(x, g, objective), lambda: before)
            return along, along
        s = tf.maximum(before, system.diagonal)
        largest = tf.reduce_max(s)
        # Parameters without any influence yet are damped as if they had next to none.
        s = tf.maximum(s, tf.where(largest > 0, linalg.eps(x.dtype) * largest, tf.ones_like(largest)))
        p = (0.5 if objective.of_weights else 1.0) if self.scaling is None else self.scaling
        if p == 1:
            return s, s
        now = tf.reduce_max(system.diagonal)
        now = tf.where(now > 0, now, tf.ones_like(now))
        return s, tf.pow(s, p) * tf.pow(now, 1 - p)

    def _first_taken(self, here, system, scaling, damping, objective):
        """The first `Trial` that lowers f, with more and more damping; the last one where none does."""
        x, f, g = here
        slopes = tf.reduce_any(tf.not_equal(g, 0))
        limit = (0.75 if objective.of_weights else 0.0) if self.acceleration is None else self.acceleration
        bent = limit > 0 and system.accelerates
        r = objective.residuals(x) if bent else None

        def one(count, trial):
            mu = tf.maximum(trial.mu, tf.constant(system.least, x.dtype))
            M = tf.maximum(mu * scaling, tf.constant(self.min_damping / 2, x.dtype))
            solver = system.damped(M)
            h = solver.step()
            promised = system.promised(h, M)
            if bent:
                a = damped.acceleration(objective, x, r, h, solver)
                short = 4 * _square(a, M) <= limit**2 * _square(h, M)
                h = tf.where(short, h + a / 2, h)
            f_trial, g_trial = objective.value_and_grad(x + h)
            rho = agreement(promised, (f, g), (f_trial, g_trial))
            taken = rho > 0
            shrink = tf.maximum(1 - tf.pow(2 * tf.minimum(rho, 1) - 1, 3), 1 / 3)
            return count + 1, damped.Trial(
                x=tf.where(taken, x + h, x),
                f=tf.where(taken, f_trial, f),
                g=tf.where(taken, g_trial, g),
                mu=mu * tf.where(taken, shrink, trial.nu),
                nu=tf.where(taken, tf.constant(2.0, x.dtype), 2 * trial.nu),
                rho=rho,
                taken=taken,
                stalled=tf.reduce_all(tf.equal(x + h, x)),
                resolved=(promised <= linalg.eps(x.dtype) * f) & (taken | (tf.equal(count, 0) & (mu <= 1))),
                unbounded=tf.equal(f_trial, float("-inf")),
            )

        def wanted(count, trial):
            over = trial.taken | trial.stalled | trial.unbounded
            return (count < _TRIALS) & slopes & ~over

        no = tf.constant(False)
        start = damped.Trial(x, f, g, *damping, tf.zeros_like(f), no, no, no, no)
        return tf.while_loop(wanted, one, (tf.constant(0), start), parallel_iterations=1)[1]

    def get_config(self) -> dict[str, Any]:
        own = {name: getattr(self, name) for name in ("tau", "solver", "max_products", "min_damping")}
        newer = {name: getattr(self, name) for name in self.left_out_of_config if getattr(self, name) is not None}
        return {**super().get_config(), **own, **newer}


def _square(v, M):
    return tf.reduce_sum(M * tf.square(v))


def _curvature_along(x, g, objective):
    """u'A u in every entry [n], u = g / |g|."""
    unit = g / tf.maximum(linalg.norm(g), linalg.tiny(g.dtype))
    return tf.zeros_like(x) + tf.tensordot(unit, objective.ggnvp(x, unit) / 2, 1)
