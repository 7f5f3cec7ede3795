"""Section 5.1, figure 1: what each method maximizes, in a bandit with actions from [-1, 1].

The data are actions uniform in [-0.25, 0.25] with the rewards r(a) = |a| - 0.125. The best actions
among them are a = -0.25 and a = 0.25; a reward network rises beyond, where there are no data.
"""

import dataclasses
import time
from collections.abc import Sequence
from typing import Any, Callable, NamedTuple, Optional

import numpy as np
import tensorflow as tf
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fbrc_agent.experiments import figures, report
from fbrc_agent.networks import initializers
from fbrc_agent.utils import progress, tables

DATA_BOUND = 0.25  # The data's actions are in [-DATA_BOUND, DATA_BOUND].
TOLERANCE = 0.02  # A peak is at +-DATA_BOUND if it is this near.
GRID = np.linspace(-1.0, 1.0, 2001, dtype=np.float32)
_INSIDE = np.abs(GRID) <= DATA_BOUND + 1e-6
_STEPS_PER_CALL = 50
_COLORS = (figures.ORANGE, figures.GREEN, figures.BLUE, figures.PURPLE)


@dataclasses.dataclass(frozen=True)
class Settings:
    """The full setting by default."""

    seeds: int = 20  # Each has its own data, weights and batches.
    penalty_weights: tuple[float, ...] = (  # F-BRC's lambda, increasing.
        0.0, 1e-6, 3e-6, 1e-5, 1e-4, 3e-4, 1e-3, 2e-3, 3e-3, 1e-2, 0.1, 1.0,
    )  # fmt: skip
    # BRAC's alpha, increasing; one reward network serves all. The derivative of its landscape
    # changes its sign in the data near 1/8.
    alphas: tuple[float, ...] = (
        0.0, 1e-6, 1e-5, 1e-4, 1e-3, 3e-3,
        *(float(f"{alpha:.3g}") for alpha in np.logspace(-2.0, 0.0, 41)),
    )  # fmt: skip
    num_actions: int = 1000  # Of the data.
    units: int = 256  # Of each of the two hidden layers.
    steps: int = 3000
    batch_size: int = 64  # Actions of the data in an update, and uniform ones for the penalty.
    learning_rate: float = 1e-3  # Adam's.


class _Method(NamedTuple):
    key: str
    name: str
    symbol: str
    latex: str
    formula: str
    weights: str  # Its lambdas or alphas in `Settings`.
    drawn: tuple[float, ...]  # Those whose landscapes are drawn.


_BRAC = _Method(
    *("brac", "BRAC", "α", r"\alpha", r"R(a) + \alpha\,\log\mu(a)", "alphas"),
    drawn=(0.0, 0.1, 0.158, 1.0),
)
_FBRC = _Method(
    *("fbrc", "F-BRC", "λ", r"\lambda", r"O(a) + \log\mu(a)", "penalty_weights"),
    drawn=(0.0, 1e-4, 1e-2, 1.0),
)
# What the methods maximize by their keys, up to a constant: `[seeds, weights, len(GRID)]`.
Landscapes = dict[str, np.ndarray]


def run_bandit(root_dir: str, quick: bool) -> report.Report:
    """Maps the landscapes over lambda and alpha; see `measure` for the numbers."""
    del root_dir
    return make_report(Settings(seeds=5) if quick else Settings())


def make_report(settings: Settings) -> report.Report:
    """Runs the bandit in the given setting."""
    started = time.perf_counter()
    landscapes = train(settings)
    numbers = measure(landscapes, settings)
    numbers["seconds"] = round(time.perf_counter() - started, 1)
    return report.Report(
        name="bandit",
        title="Bandit: what F-BRC and BRAC maximize (section 5.1, figure 1)",
        numbers=numbers,
        figure=draw(landscapes, numbers),
        text=describe(numbers),
    )


def reward(actions: np.ndarray) -> np.ndarray:
    """Returns r(a) = |a| - 0.125."""
    return np.abs(actions) - 0.125


def fit_laplace(actions: np.ndarray) -> tuple[float, float]:
    """Returns location and scale of the Laplace density of the highest likelihood.

    Those are the median and the mean absolute deviation from it.
    """
    location = np.median(actions)
    return float(location), float(np.mean(np.abs(actions - location)))


def laplace_log_prob(actions: np.ndarray, location: float, scale: float) -> np.ndarray:
    """Returns log mu(a) = -|a - location| / scale - log(2 scale), in nats."""
    return -np.abs(actions - location) / scale - np.log(2.0 * scale)


def values(weights: Sequence[tf.Tensor], actions: tf.Tensor) -> tf.Tensor:
    """Returns f_k(a), `[K, B]`, of K networks of two hidden ReLU layers at actions a `[B]`.

    `weights` are their kernels and biases, stacked: `[K, 1, U]`, `[K, 1, U]`, `[K, U, U]`,
    `[K, 1, U]`, `[K, U, 1]` and `[K, 1, 1]`.
    """
    kernel_1, bias_1, kernel_2, bias_2, kernel_3, bias_3 = weights
    hidden = tf.nn.relu(actions[:, tf.newaxis] * kernel_1 + bias_1)
    return (tf.nn.relu(hidden @ kernel_2 + bias_2) @ kernel_3 + bias_3)[:, :, 0]


def derivatives(weights: Sequence[tf.Tensor], actions: tf.Tensor) -> tf.Tensor:
    """Returns df_k/da, `[K, B]`, of actions `[B]`: the derivative is carried forward.

    A ReLU's derivative is a step, whose own is 0: the steps are constants to the second derivative.
    """
    kernel_1, bias_1, kernel_2, bias_2, kernel_3, _ = weights
    hidden = actions[:, tf.newaxis] * kernel_1 + bias_1
    step_1 = tf.cast(hidden > 0.0, tf.float32)
    step_2 = tf.cast((step_1 * hidden) @ kernel_2 + bias_2 > 0.0, tf.float32)
    return ((step_2 * ((step_1 * kernel_1) @ kernel_2)) @ kernel_3)[:, :, 0]


def losses(
    weights: Sequence[tf.Tensor], actions: tf.Tensor, targets: tf.Tensor,
    uniform_actions: tf.Tensor, penalty_weights: tf.Tensor,
) -> tf.Tensor:  # fmt: skip
    """Returns the mean of (f_k(a) - y_k)^2 plus lambda_k times that of (df_k/da)^2, `[K]`.

    With y = r(a) - log mu(a), that is eq. 7 of a single step, its policy uniform; with y = r(a) and
    lambda = 0 it is the regression on the rewards. `actions` a are those of the data, `[B]`,
    `targets` y_k, `[K, B]`, and `uniform_actions` those of the penalty, `[P]`.
    """
    errors = tf.reduce_mean(tf.square(values(weights, actions) - targets), axis=1)
    penalties = tf.reduce_mean(tf.square(derivatives(weights, uniform_actions)), axis=1)
    return errors + penalty_weights * penalties


def train(settings: Settings) -> Landscapes:
    """Fits all networks of every seed; returns O(a) + log mu(a) and R(a) + alpha log mu(a) on GRID.

    The networks of a seed, one for each lambda and one for the rewards, are trained together, from
    the same first weights and on the same batches.
    """
    networks, units = len(settings.penalty_weights) + 1, settings.units
    shapes = ((1, units), (1, units), (units, units), (1, units), (units, 1), (1, 1))
    variables = [tf.Variable(tf.zeros((networks, *shape))) for shape in shapes]
    # Adam goes by elements, so that networks in one tensor do not touch each other. The legacy one
    # is a fused operation.
    optimizer = tf.keras.optimizers.legacy.Adam(settings.learning_rate)
    update = _make_update(settings, variables, optimizer)
    landscapes: dict[str, list[np.ndarray]] = {"fbrc": [], "brac": []}
    total = settings.seeds * settings.steps
    with progress.make_bar(total=total, desc="bandit", unit="update", smoothing=0.05) as bar:
        for seed in range(settings.seeds):
            bounds = -DATA_BOUND, DATA_BOUND
            actions = np.random.default_rng(seed).uniform(*bounds, settings.num_actions)
            laplace = fit_laplace(actions)
            rewards = reward(actions)
            offsets = [rewards - laplace_log_prob(actions, *laplace)] * (networks - 1)
            data = [tf.constant(x, tf.float32) for x in (actions, np.stack([*offsets, rewards]))]
            _reset(variables, optimizer, seed)
            for start in range(0, settings.steps, _STEPS_PER_CALL):
                stop = min(start + _STEPS_PER_CALL, settings.steps)
                update(*data, *(tf.constant(number) for number in (seed, start, stop)))
                bar.update(stop - start)
            fitted = values(variables, tf.constant(GRID)).numpy()
            log_mu = laplace_log_prob(GRID, *laplace)
            landscapes["fbrc"].append(fitted[:-1] + log_mu)
            landscapes["brac"].append(fitted[-1] + np.outer(settings.alphas, log_mu))
    return {key: np.stack(of_seeds) for key, of_seeds in landscapes.items()}


def _reset(variables: Sequence[tf.Variable], optimizer: Any, seed: int) -> None:
    """Gives all networks the same weights, initialized as the offset network's; biases are 0."""
    hidden, output = initializers.HiddenKernelInitializer, initializers.OutputKernelInitializer
    for variable in (*variables, *optimizer.variables()):  # Adam's, after the first update.
        variable.assign(tf.zeros_like(variable))
    kernels: dict[int, Any] = {0: hidden, 2: hidden, 4: output}
    for i, create in kernels.items():
        first = create(seed=6 * seed + i)(variables[i].shape[1:])
        variables[i].assign(tf.broadcast_to(first, variables[i].shape))


def _make_update(
    settings: Settings, variables: Sequence[tf.Variable], optimizer: Any
) -> Callable[..., None]:
    """Returns a function of actions `[N]`, targets `[K, N]`, seed, first and last step."""
    penalty_weights = tf.constant([*settings.penalty_weights, 0.0])

    @tf.function
    def update(
        actions: tf.Tensor, targets: tf.Tensor, seed: tf.Tensor, start: tf.Tensor, stop: tf.Tensor
    ) -> None:
        for step in tf.range(start, stop):
            indices = tf.random.stateless_uniform(
                [settings.batch_size], [seed, 2 * step], 0, tf.shape(actions)[0], tf.int32
            )
            uniform_actions = _stratified_actions(settings.batch_size, [seed, 2 * step + 1])
            batch = tf.gather(actions, indices), tf.gather(targets, indices, axis=1)
            # Every variable is read once, and all its gradients follow from that: no read can be
            # delayed beyond the update.
            weights = [variable.read_value() for variable in variables]
            with tf.GradientTape(watch_accessed_variables=False) as tape:
                tape.watch(weights)
                # No weight is in two networks, so the gradient of the sum is that of each loss.
                loss = tf.reduce_sum(losses(weights, *batch, uniform_actions, penalty_weights))
            optimizer.apply_gradients(zip(tape.gradient(loss, weights), variables))

    return update


def _stratified_actions(size: int, seed: Sequence[Any]) -> tf.Tensor:
    """Returns actions, `[size]`, one uniform in each of equal parts of [-1, 1].

    A mean over them has the expectation of one over independent uniform actions, and a smaller
    variance.
    """
    places = tf.range(size, dtype=tf.float32) + tf.random.stateless_uniform([size], seed)
    return 2.0 * places / size - 1.0


def measure(landscapes: Landscapes, settings: Settings) -> dict[str, Any]:
    """Returns the numbers of bandit.json.

    `argmax` is the landscape's highest action on a grid of steps of 0.001, one number per seed.
    `error_inside` is the mean of |landscape - r| over |a| <= 0.25, both less their means there: a
    constant, as log mu brings it in, does not change what is preferred. (It is 0.0625 for a flat
    landscape.) `robust_range` holds the longest run of neighboring lambda (alpha) greater than 0
    that all peak within 0.02 of +-0.25: for every seed, and for the median of |argmax| over seeds.
    """
    numbers: dict[str, Any] = {"settings": dataclasses.asdict(settings), "robust_range": {}}
    for method in (_FBRC, _BRAC):
        landscape, weights = landscapes[method.key], getattr(settings, method.weights)
        argmax = GRID[landscape.argmax(axis=2)].astype(np.float64)
        error = landscape[..., _INSIDE] - reward(GRID[_INSIDE])
        error = np.abs(error - error.mean(axis=2, keepdims=True)).mean(axis=2, dtype=np.float64)
        numbers[method.key] = {
            f"{weight:g}": {"argmax": peaks.round(3).tolist(), "error_inside": e.round(5).tolist()}
            for weight, peaks, e in zip(weights, argmax.T, error.T)
        }
        numbers["robust_range"][method.key] = {
            "every_seed": robust_range(weights, is_at_bound(argmax).all(axis=0)),
            "median_seed": robust_range(weights, is_at_bound(np.median(np.abs(argmax), axis=0))),
        }
    return numbers


def is_at_bound(peaks: np.ndarray) -> np.ndarray:
    """Returns whether |argmax| is within TOLERANCE of the data's bound."""
    # Both are multiples of the grid's step: half of one decides nothing but rounding.
    return np.abs(np.abs(peaks) - DATA_BOUND) <= TOLERANCE + 0.0005


def robust_range(weights: Sequence[float], holds: np.ndarray) -> Optional[dict[str, float]]:
    """Returns the longest run of weights > 0 for which something holds, or None."""
    best: Optional[dict[str, float]] = None
    first: Optional[float] = None
    for weight, held in zip(weights, holds):
        if not held or weight <= 0.0:
            first = None
            continue
        first = weight if first is None else first
        decades = round(float(np.log10(weight / first)), 2)
        if best is None or decades > best["decades"]:
            best = {"from": first, "to": weight, "decades": decades}
    return best


def describe(numbers: dict[str, Any]) -> str:
    """Returns the results in Markdown."""
    paragraphs = [
        f"A landscape holds if it peaks at ±{DATA_BOUND} within {TOLERANCE}. There are "
        f"{numbers['settings']['seeds']} seeds; the tables have their median, and from the lowest "
        "to the highest.",
    ]
    for method in (_FBRC, _BRAC):
        symbol, ranges = method.symbol, numbers["robust_range"][method.key]
        rows = [[f"{method.name}, {symbol}", "seeds that hold", "peak at ±", "error inside"]]
        for key, entry in numbers[method.key].items():
            # Of BRAC's many, some decades, and all about alpha = 1/8.
            is_listed = key in ("0", "0.001", "0.01", "1") or 0.1 <= float(key) <= 0.2
            if method is _FBRC or is_listed:
                peaks = np.abs(entry["argmax"])
                peak = f"{np.median(peaks):.3f} ({peaks.min():.3f} to {peaks.max():.3f})"
                error = f"{np.median(entry['error_inside']):.4f}"
                rows.append([key, str(is_at_bound(peaks).sum()), peak, error])
        every, median = (
            f"for no {symbol}"
            if found is None
            else f"for {symbol} from {found['from']:g} to {found['to']:g}, "
            f"{found['decades']:g} decades"
            for found in ranges.values()
        )
        paragraphs += [
            f"{method.name}: every seed holds {every}; the median of the seeds holds {median}.",
            tables.table(rows, markdown=True),
        ]
    return "\n\n".join(paragraphs)


@figures.styled
def draw(landscapes: Landscapes, numbers: dict[str, Any]) -> Figure:
    """Returns the figure: landscapes above, where they peak below; BRAC left, F-BRC right.

    Args:
      landscapes: What `train` returned.
      numbers: What `measure` returned.
    """
    figure = Figure(figsize=(12.0, 8.6))
    axes = figure.subplots(2, 2, sharey="row")
    for column, method in zip(axes.T, (_BRAC, _FBRC)):
        weights = np.array(numbers["settings"][method.weights])
        _draw_landscapes(column[0], method, landscapes[method.key], weights)
        _draw_peaks(column[1], method, weights, numbers)
    axes[0, 0].set_ylabel("landscape, shifted to r's mean in the data")
    axes[1, 0].set_ylabel("|a| where the landscape peaks")
    figure.suptitle(
        "Bandit, r(a) = |a| - 0.125, data in [-0.25, 0.25], "
        f"{numbers['settings']['seeds']} seeds: the best action in the data is at ±0.25"
    )
    return figure


def _draw_landscapes(
    axes: Axes, method: _Method, landscape: np.ndarray, weights: np.ndarray
) -> None:
    """Draws the median of the seeds, a band from the lowest to the highest, and each one's peak."""
    rewards = reward(GRID)
    inside = landscape[..., _INSIDE].mean(axis=-1, keepdims=True)
    aligned = landscape - inside + rewards[_INSIDE].mean()
    axes.axvspan(-DATA_BOUND, DATA_BOUND, color="0.9", lw=0, label="actions in the data")
    axes.plot(GRID, rewards, color="black", ls="--", lw=1.6, zorder=3, label="reward r(a)")
    for weight, color in zip(sorted({*method.drawn} & {*weights}), _COLORS):
        seeds = aligned[:, list(weights).index(weight)]
        axes.fill_between(GRID, seeds.min(0), seeds.max(0), color=color, alpha=0.2, lw=0)
        label = f"${method.latex}$ = {weight:g}"
        axes.plot(GRID, np.median(seeds, axis=0), color=color, lw=1.8, label=label)
        axes.scatter(
            GRID[seeds.argmax(1)], seeds.max(1), color=color, ec="white", zorder=5, clip_on=False
        )
    title = f"{method.name}: ${method.formula}$;  dots: peaks of the seeds"
    axes.set(title=title, xlabel="action a", xlim=(-1.0, 1.0), ylim=(-1.2, 1.2))
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.14), ncols=3)


def _draw_peaks(axes: Axes, method: _Method, weights: np.ndarray, numbers: dict[str, Any]) -> None:
    """Draws |argmax| of every seed and their median against lambda or alpha, from 0 on."""
    peaks = np.abs([entry["argmax"] for entry in numbers[method.key].values()])
    medians = np.median(peaks, axis=1)
    # Linear up to the smallest weight of both methods.
    known = [w for m in (_BRAC, _FBRC) for w in numbers["settings"][m.weights] if w > 0.0]
    axes.set_xscale("symlog", linthresh=min(known), linscale=0.5)
    ends = DATA_BOUND - TOLERANCE, DATA_BOUND + TOLERANCE
    axes.axhspan(*ends, color=figures.GREEN, alpha=0.35, lw=0, label=f"{DATA_BOUND} ± {TOLERANCE}")
    held = numbers["robust_range"][method.key]["every_seed"]
    if held is not None:
        label = "every seed peaks there"
        axes.axvspan(held["from"], held["to"], color=figures.SKY, alpha=0.25, lw=0, label=label)
    labels = ["a seed", *[None] * (peaks.shape[1] - 1)]
    axes.plot(weights, peaks, ".", color=figures.GRAY, ms=5, alpha=0.5, label=labels)
    axes.plot(weights, medians, color=figures.BLUE, lw=1.8, label="median of the seeds")
    found = "for no" if held is None else f"over {held['decades']:.1f} decades of"
    title = f"{method.name}: every seed peaks at ±{DATA_BOUND} {found} ${method.latex}$"
    axes.set(title=title, xlabel=f"${method.latex}$", ylim=(-0.04, 1.04))
    axes.legend(framealpha=0.9)
