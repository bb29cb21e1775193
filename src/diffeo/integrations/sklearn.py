"""scikit-learn: flows as density estimators, conditional density estimators and transformers.

The models compute in float64, the precision of scikit-learn, so that a score does not depend on its batch mates.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal, cast

import numpy as np
import torch
from sklearn.base import (
    BaseEstimator,
    ClassNamePrefixFeaturesOutMixin,
    DensityMixin,
    RegressorMixin,
    TransformerMixin,
)
from sklearn.utils import check_array, check_random_state
from sklearn.utils.validation import check_is_fitted, validate_data
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

from .. import zoo
from ..data.checks import check_columns
from ..distributions import StandardNormal
from ..errors import ConfigError, InputError
from ..flow import Flow
from ..nets import Scaled
from ..training import fit as fit_flow

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    Array = NDArray[np.float64]

__all__ = ["ConditionalFlowDensity", "FlowDensity", "FlowTransformer", "log_likelihood"]

_CHUNK = 10_000  # rows that are computed at a time


def log_likelihood(estimator: Any, X: ArrayLike, y: ArrayLike | None = None) -> float:
    """Mean log-density of held-out rows, in nats: the `scoring` of GridSearchCV and cross_val_score for densities."""
    scores = estimator.score_samples(X) if y is None else estimator.score_samples(X, y)
    return float(np.mean(scores))


class _FlowEstimator(BaseEstimator):  # type: ignore[misc]
    """Parameters and training that the estimators have in common."""

    model: str | Callable[..., Flow]
    size: str
    hyper: dict[str, Any] | None
    steps: int
    batch_size: int
    lr: float
    validation_fraction: float
    settings: dict[str, Any] | None
    random_state: Any

    def _build(self, features: int, context: Tensor | None) -> Flow:
        shape = None if context is None else tuple(context.shape[1:])
        if callable(self.model):
            flow = self.model((features,), shape)
        else:
            seen: Any = {} if shape is None else {"embedding": Scaled(shape)}
            flow = zoo.build(self.model, (features,), shape, self.size, **seen, **self.hyper or {})
        if not isinstance(flow, Flow):
            raise ConfigError(f"model must make a diffeo.Flow, got {type(flow).__name__}")
        if flow.event_shape != (features,) or flow.dequantized:
            raise ConfigError(
                f"model must be of {features} real numbers, got a flow of {flow.event_shape} "
                f"({flow.properties.measure} measure)"
            )
        flow.double()
        if isinstance(flow.embedding, Scaled) and context is not None:
            flow.embedding.fit(context)
        return flow

    def _fit_flow(self, x: Array, context: Array | None, sample_weight: Any) -> None:
        """Train `flow_` on distinct rows and their weights: an integer weight is as many copies, zero is none."""
        weights = _weights(sample_weight, len(x))
        joined = x if context is None else np.hstack([x, context])
        rows, which = np.unique(joined[weights > 0], axis=0, return_inverse=True)
        total = np.bincount(which.ravel(), weights[weights > 0])
        columns = x.shape[1]
        names = tuple(getattr(self, "feature_names_in_", ())) if context is None else ()
        what = "X" if context is None else "y"
        check_columns(rows[:, :columns], names or None, what, _CHUNK)
        random = check_random_state(self.random_state)
        seed = int(random.randint(2**31 - 1))
        held = np.zeros(len(rows), dtype=bool)
        if not 0 <= self.validation_fraction < 1:
            raise ConfigError(
                f"validation_fraction must be in [0, 1), got {self.validation_fraction!r}"
            )
        held[random.permutation(len(rows))[: int(self.validation_fraction * len(rows))]] = True
        tensors = torch.from_numpy(rows)
        data, seen = tensors[:, :columns], None if context is None else tensors[:, columns:]
        weight = torch.from_numpy(total / total.mean())
        settings: dict[str, Any] = {"threads": 1, "seed": seed} | (self.settings or {})
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            flow = self._build(columns, None if seen is None else seen[~held])
            run = fit_flow(
                flow,
                data[~held],
                context=None if seen is None else seen[~held],
                weights=None if len(set(total)) == 1 else weight[~held],
                validation=_loader(data, seen, weight, held) if held.any() else None,
                progress=False,
                steps=self.steps,
                batch_size=self.batch_size,
                lr=self.lr,
                **settings,
            )
        self.flow_ = flow
        self.n_steps_ = int(run.metrics["steps"])


class FlowDensity(DensityMixin, _FlowEstimator):  # type: ignore[misc]
    """p(X) by a flow; `score_samples` is its log_prob.

    model: a name of `diffeo.zoo`, or a callable `(event_shape, context_shape) -> Flow`. size, hyper: as in
    `diffeo.zoo.build`. steps, batch_size, lr: of the training. validation_fraction: share of the distinct rows that
    choose the best weights; 0 for none. settings: more keywords of `diffeo.fit`, such as {"patience": 5}.
    random_state: of the initial weights, of the rows held out and of their order.

    After `fit`: flow_ (a `diffeo.Flow` in float64), n_steps_, n_features_in_, feature_names_in_.
    """

    def __init__(
        self,
        model: str | Callable[..., Flow] = "nsf_coupling",
        *,
        size: str = "small",
        hyper: dict[str, Any] | None = None,
        steps: int = 1000,
        batch_size: int = 256,
        lr: float = 1e-3,
        validation_fraction: float = 0.1,
        settings: dict[str, Any] | None = None,
        random_state: Any = None,
    ) -> None:
        self.model = model
        self.size = size
        self.hyper = hyper
        self.steps = steps
        self.batch_size = batch_size
        self.lr = lr
        self.validation_fraction = validation_fraction
        self.settings = settings
        self.random_state = random_state

    def fit(self, X: ArrayLike, y: Any = None, sample_weight: ArrayLike | None = None) -> Any:
        """Train on X [n, features] by maximum likelihood; y is ignored. sample_weight: one number per row.

        Raises ValueError, DataError among them, for rows that have no density: NaN, constant or copied columns.
        """
        X = validate_data(self, X, dtype=np.float64, ensure_min_samples=2)
        self._fit_flow(cast("Array", X), None, sample_weight)
        return self

    def score_samples(self, X: ArrayLike) -> Array:
        """log p(x) of each row, in nats: `flow_.log_prob`."""
        x = self._checked(X)
        with torch.no_grad():
            return cast("Array", self.flow_.log_prob(x, batch_size=_CHUNK).numpy())

    def score(self, X: ArrayLike, y: Any = None) -> float:
        """Mean log p of the rows, in nats."""
        return float(self.score_samples(X).mean())

    def sample(self, n_samples: int = 1, random_state: Any = None) -> Array:
        """New rows [n_samples, features]. random_state: None for numpy's global one."""
        check_is_fitted(self)
        generator = _generator(random_state)
        return cast(
            "Array", self.flow_.sample(n_samples, generator=generator, batch_size=_CHUNK).numpy()
        )

    def _checked(self, X: ArrayLike) -> Tensor:
        check_is_fitted(self)
        return _tensor(validate_data(self, X, dtype=np.float64, reset=False))


class FlowTransformer(ClassNamePrefixFeaturesOutMixin, TransformerMixin, FlowDensity):  # type: ignore[misc]
    """Rows to independent standard normal latents by a flow, and back; also a density, as `FlowDensity`.

    The latents are normal as far as the flow fits; their number is that of the features.
    """

    def transform(self, X: ArrayLike) -> Array:
        """Latents [n, features]: `flow_.encode`."""
        x = self._checked(X)
        with torch.no_grad():
            return cast("Array", self.flow_.encode(x, batch_size=_CHUNK).numpy())

    def inverse_transform(self, X: ArrayLike) -> Array:
        """Rows of latents: `flow_.decode`."""
        check_is_fitted(self)
        z = _tensor(check_array(X, dtype=np.float64))
        with torch.no_grad():
            return cast("Array", self.flow_.decode(z, batch_size=_CHUNK).numpy())

    @property
    def _n_features_out(self) -> int:
        return int(self.n_features_in_)


class ConditionalFlowDensity(RegressorMixin, _FlowEstimator):  # type: ignore[misc]
    """p(y | X) by a conditional flow; a regressor whose prediction is the mean or the median of y given x.

    model, size, hyper, steps, batch_size, lr, validation_fraction, settings, random_state: as for `FlowDensity`; a
    callable model gets context_shape = (features,). X is scaled in the flow (`diffeo.nets.Scaled`). center: `mean` or
    `median`. draws: points of the conditional distribution behind predictions and quantiles, the same for every row:
    for one output of a flow with a standard normal base the midpoints of equally likely intervals, else draws.

    `score` is R^2, as of every regressor; choose models by `scoring=log_likelihood`.
    """

    def __init__(
        self,
        model: str | Callable[..., Flow] = "nsf_coupling",
        *,
        size: str = "small",
        hyper: dict[str, Any] | None = None,
        steps: int = 1000,
        batch_size: int = 256,
        lr: float = 1e-3,
        validation_fraction: float = 0.1,
        settings: dict[str, Any] | None = None,
        random_state: Any = None,
        center: Literal["mean", "median"] = "mean",
        draws: int = 200,
    ) -> None:
        self.model = model
        self.size = size
        self.hyper = hyper
        self.steps = steps
        self.batch_size = batch_size
        self.lr = lr
        self.validation_fraction = validation_fraction
        self.settings = settings
        self.random_state = random_state
        self.center = center
        self.draws = draws

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags

    def fit(self, X: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None = None) -> Any:
        """Train on X [n, features] and y [n] or [n, outputs] by maximum likelihood of y given X.

        Raises ValueError, DataError among them, for rows that have no density: NaN, constant or copied outputs.
        """
        if self.center not in ("mean", "median"):
            raise ConfigError(f"center must be mean or median, got {self.center!r}")
        if not isinstance(self.draws, int) or self.draws < 1:
            raise ConfigError(f"draws must be a positive integer, got {self.draws!r}")
        X, y = validate_data(
            self, X, y, dtype=np.float64, ensure_min_samples=2, multi_output=True, y_numeric=True
        )
        outputs = np.asarray(y, dtype=np.float64)
        self.n_outputs_ = 1 if outputs.ndim == 1 else outputs.shape[1]
        self._flat = outputs.ndim == 1
        self._fit_flow(outputs.reshape(len(outputs), -1), cast("Array", X), sample_weight)
        self._latents = self._points()
        return self

    def predict(self, X: ArrayLike) -> Array:
        """The mean or the median (`center`) of y given each row of X, in the shape that y had."""
        if self.center == "median":
            return self.predict_quantiles(X, 0.5)
        x = self._checked(X)
        return self._decoded(x, self._latents, lambda y: cast("Array", y.mean(0)))

    def predict_quantiles(self, X: ArrayLike, quantiles: float | ArrayLike) -> Array:
        """Quantiles of each output by itself given each row of X: [*quantiles.shape, n] or [..., n, outputs].

        Exact for one output of a flow with a standard normal base; else those of `draws` points.
        """
        x = self._checked(X)
        levels = np.asarray(quantiles, dtype=np.float64)
        if not bool(((levels > 0) & (levels < 1)).all()):
            raise InputError(f"quantiles must lie between 0 and 1, got {quantiles!r}")
        flat = levels.reshape(-1)
        if self._one_normal:
            # y is a monotone function of one normal, increasing or decreasing: quantile q is at one end or the other.
            ends = torch.from_numpy(np.concatenate([flat, 1 - flat]))[:, None]
            below = (flat < 0.5)[:, None, None]

            def reduce(y: Array) -> Array:
                a, b = y[: len(flat)], y[len(flat) :]
                return np.where(below, np.minimum(a, b), np.maximum(a, b))

            out = self._decoded(x, torch.special.ndtri(ends), reduce)
        else:
            out = self._decoded(x, self._latents, lambda y: np.quantile(y, flat, axis=0))
        return out.reshape(*levels.shape, *out.shape[1:])

    def score_samples(self, X: ArrayLike, y: ArrayLike | None = None) -> Array:
        """log p(y | x) of each row, in nats: `flow_.log_prob(y, X)`; without y, of the predicted value."""
        x = self._checked(X)
        values = np.asarray(self.predict(X) if y is None else y, dtype=np.float64)
        values = values.reshape(len(values), -1)
        if values.shape != (len(x), self.n_outputs_):
            raise InputError(
                f"expected y with {len(x)} rows and {self.n_outputs_} outputs, got {values.shape}"
            )
        with torch.no_grad():
            log_prob = self.flow_.log_prob(_tensor(values), x, batch_size=_CHUNK)
        return cast("Array", log_prob.numpy())

    def sample(self, X: ArrayLike, n_samples: int | None = None, random_state: Any = None) -> Array:
        """One y for each row of X, in the shape that y had; or [n_samples, ...]. random_state: as for `FlowDensity`."""
        x = self._checked(X)
        shape = () if n_samples is None else (n_samples,)
        y = self.flow_.sample(shape, x, generator=_generator(random_state), batch_size=_CHUNK)
        return cast("Array", (y[..., 0] if self._flat else y).numpy())

    def _checked(self, X: ArrayLike) -> Tensor:
        check_is_fitted(self)
        return _tensor(validate_data(self, X, dtype=np.float64, reset=False))

    @property
    def _one_normal(self) -> bool:
        return self.n_outputs_ == 1 and isinstance(self.flow_.base, StandardNormal)

    def _points(self) -> Tensor:
        """Latents [draws, outputs] that stand for the base."""
        if self._one_normal:
            middles = (torch.arange(self.draws).double() + 0.5) / self.draws
            points: Tensor = torch.special.ndtri(middles)[:, None]
            return points
        if self.flow_.base.context_shape is not None:
            raise ConfigError(
                f"the base {type(self.flow_.base).__name__} reads the context: predictions need one that does not"
            )
        generator = torch.Generator().manual_seed(0)
        points = self.flow_.base.sample(self.draws, generator=generator)
        return points.detach()

    def _decoded(self, x: Tensor, z: Tensor, reduce: Callable[[Array], Array]) -> Array:
        """reduce([points, rows, outputs]) -> [..., rows, outputs] over chunks of rows, joined."""
        pieces = []
        with torch.no_grad():
            for rows in x.split(max(1, 10 * _CHUNK // len(z))):
                pieces.append(reduce(self.flow_.decode(z[:, None], rows).numpy()))
        out = np.concatenate(pieces, axis=-2)
        return out[..., 0] if self._flat else out


def _tensor(values: Any) -> Tensor:
    """A tensor of its own memory, as arrays may be read-only."""
    return torch.tensor(values, dtype=torch.float64)


def _generator(random_state: Any) -> torch.Generator:
    return torch.Generator().manual_seed(int(check_random_state(random_state).randint(2**31 - 1)))


def _weights(sample_weight: Any, n: int) -> Array:
    if sample_weight is None:
        return np.ones(n)
    weights: Array = np.asarray(sample_weight, dtype=np.float64)
    if weights.shape != (n,):
        raise InputError(
            f"sample_weight must have shape ({n},), one number per row, got {weights.shape}"
        )
    if not bool(np.isfinite(weights).all()) or weights.min() < 0:
        raise InputError("sample_weight must be finite and not negative")
    if weights.max() == 0:
        raise InputError("all sample weights are zero")
    return weights


def _loader(x: Tensor, context: Tensor | None, weights: Tensor, rows: Any) -> Any:
    """The held-out rows with their weights."""
    seen = x.new_empty(len(x), 0) if context is None else context
    held = TensorDataset(x[rows], seen[rows], weights[rows])
    return DataLoader(held, batch_size=1000)
