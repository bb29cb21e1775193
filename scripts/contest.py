"""Flows of any library under one training loop, one search and one wall-time budget."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

EMA, CLIP, WARMUP = 0.99, 5.0, 50
FIRST_ROUND, SURVIVORS = 1 / 3, 2
"""The share of the time in which all candidates start, and how many of them go on."""


@dataclass(frozen=True)
class Rival:
    """A candidate: `build(D)` gives a module whose forward is log p of rows [n, D]."""

    label: str
    build: Callable[[int], nn.Module]
    lr: float
    weight_decay: float = 0.0


class Learner:
    """AdamW on the mean of -log p; keeps the moving average of the weights that was best on the validation rows."""

    def __init__(self, rival: Rival, train: Tensor, validation: Tensor, seed: int) -> None:
        torch.manual_seed(seed)
        self.rival, self.train, self.held_out = rival, train, validation
        self.batch = 256 if len(train) < 5000 else 512
        self.flow = rival.build(train.shape[1])
        if hasattr(self.flow, "initialize"):
            self.flow.eval().initialize(train[:4096])
        self.flow.train()
        self.average = copy.deepcopy(self.flow).eval()
        weights = [p for p in self.flow.parameters() if p.ndim > 1]
        others = [p for p in self.flow.parameters() if p.ndim <= 1]
        self.optimizer = torch.optim.AdamW(
            [
                {"params": weights, "weight_decay": rival.weight_decay},
                {"params": others, "weight_decay": 0.0},
            ],
            lr=rival.lr,
        )
        self.steps, self.best_step, self.validation = 0, 0, -math.inf
        self.best = copy.deepcopy(self.average.state_dict())
        self.failed = ""

    def run(self, seconds: float, *, anneal: bool = False) -> None:
        """Train for so long; anneal: the learning rate falls to zero on a cosine over this time."""
        began = time.monotonic()
        while not self.failed and (share := (time.monotonic() - began) / seconds) < 1:
            factor = 0.5 * (1 + math.cos(math.pi * share)) if anneal else 1.0
            for group in self.optimizer.param_groups:
                group["lr"] = self.rival.lr * factor * min(1.0, (self.steps + 1) / WARMUP)
            try:
                self._step()
            except (ArithmeticError, AssertionError, RuntimeError, ValueError) as error:
                self.failed = f"{type(error).__name__}: {error}".splitlines()[0]
            if self.steps % 20 == 0:
                self._validate()
        self._validate()

    def _step(self) -> None:
        rows = torch.randint(len(self.train), (min(self.batch, len(self.train)),))
        loss = -self.flow(self.train[rows]).mean()
        if not bool(loss.isfinite()):
            raise ArithmeticError("the loss is not finite")
        self.optimizer.zero_grad()
        loss.backward()
        parameters = list(self.flow.parameters())
        nn.utils.clip_grad_norm_(parameters, CLIP)
        self.optimizer.step()
        self.steps += 1
        decay = min(EMA, self.steps / (self.steps + 10))
        with torch.no_grad():
            for mean, p in zip(self.average.parameters(), parameters, strict=True):
                mean.lerp_(p, 1 - decay)

    @torch.no_grad()
    def _validate(self) -> None:
        if self.failed:
            return
        value = float(self.average(self.held_out).mean())
        if value > self.validation:
            self.validation, self.best_step = value, self.steps
            self.best = copy.deepcopy(self.average.state_dict())

    @torch.no_grad()
    def log_prob(self, x: Tensor) -> Tensor:
        """With the best weights."""
        self.average.load_state_dict(self.best)
        out: Tensor = torch.cat([self.average(rows) for rows in x.split(1000)])
        return out.double()


def race(
    rivals: Sequence[Rival], train: Tensor, validation: Tensor, seconds: float, seed: int
) -> list[Learner]:
    """All candidates for a third of the time, the best on the validation rows for the rest; these, the best first."""
    end = time.monotonic() + seconds
    learners = []
    for rival in rivals:
        began = time.monotonic()
        learner = Learner(rival, train, validation, seed)
        left = FIRST_ROUND * seconds / len(rivals) - (time.monotonic() - began)
        learner.run(max(left, 0.1))
        learners.append(learner)
    learners = sorted(learners, key=lambda one: -one.validation)[:SURVIVORS]
    for i, learner in enumerate(learners):
        learner.run((end - time.monotonic()) / (len(learners) - i), anneal=True)
    return sorted(learners, key=lambda one: -one.validation)


def mixture_weights(log_prob: Tensor, steps: int = 200) -> Tensor:
    """w maximizing mean log sum_k w_k p_k over rows, log_prob [n, K], by EM from equal weights."""
    log_w = torch.full_like(log_prob[0], -math.log(log_prob.shape[1]))
    for _ in range(steps):
        log_w = (log_prob + log_w).log_softmax(1).logsumexp(0) - math.log(len(log_prob))
    return log_w.exp()
