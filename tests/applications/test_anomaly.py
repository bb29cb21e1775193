"""Anomaly scores: levels add up to the likelihood, p-values are exact, and strange pictures are found."""

import math
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from tests.docs.test_measured import loaded

import diffeo
from diffeo.applications import Detector, Evidence, evidence
from diffeo.applications.anomaly import STATISTICS, Statistic, auroc
from diffeo.errors import ConfigError, DiffeoError, InputError
from diffeo.testing import randomize

FAR = Statistic(lambda found: found.bits, "far", "all numbers")


def numbers(values):
    """Evidence that says these numbers."""
    values = torch.as_tensor(values, dtype=torch.float64)
    return Evidence(values.reshape(len(values), -1), torch.ones(len(values), 1), None)


@pytest.fixture(scope="module")
def glow():
    """Two levels with a conditional split, in float64, over 4 x 4 pictures of 9 levels."""
    torch.manual_seed(0)
    flow = diffeo.zoo.build("glow", (1, 4, 4), size="tiny", levels=9, scales=2).double()
    return randomize(flow, seed=1, scale=0.3).eval()


def test_levels_add_up_to_the_likelihood(glow):
    x = torch.randint(0, 9, (5, 1, 4, 4)).byte()
    found = evidence(glow, x, draws=3, seed=7)
    generator = torch.Generator().manual_seed(7)
    noise = glow.transform.draw(3, generator=generator, like=glow.base.like)
    log_p, squares = [], []
    for i in range(3):
        draw = tuple(None if n is None else n[i].expand(5, 1, 4, 4) for n in noise)
        log_p.append(glow.log_prob(x, noise=draw))
        z, _ = glow.transform(x, None, draw)
        squares.append(torch.stack([z[:, v.slice].square().mean(1) for v in glow.levels], 1))
    assert found.bits.shape == found.norms.shape == (5, 2)
    expected = -torch.stack(log_p).mean(0) / (16 * math.log(2))
    torch.testing.assert_close(found.bits.sum(1), expected.detach())
    torch.testing.assert_close(found.norms, torch.stack(squares).mean(0).detach())


def test_the_coarse_level_is_a_density_of_its_own(glow):
    """Of what goes on after the split, under the rest of the chain."""
    inner = glow.continuous
    x = torch.rand(4, 1, 4, 4, dtype=torch.float64) * 9
    found = evidence(inner, x)
    *first, split = unnested(inner.transform)
    with torch.no_grad():
        for part in first:
            x, _ = part(x)
        kept, _ = split.partition.split(x)
        log_p = diffeo.Flow(split.rest).double().log_prob(kept)
    torch.testing.assert_close(found.bits[:, -1], -log_p / (16 * math.log(2)))


def unnested(transform):
    if not isinstance(transform, diffeo.transforms.Chain):
        return [transform]
    return [part for inner in transform for part in unnested(inner)]


def test_an_event_has_the_same_numbers_wherever_it_stands(glow):
    x = torch.randint(0, 9, (7, 1, 4, 4)).byte()
    whole = evidence(glow, x, batch_size=2)
    for i in (0, 4):
        one = evidence(glow, x[i : i + 1])
        torch.testing.assert_close(one.bits[0], whole.bits[i])
        torch.testing.assert_close(one.norms[0], whole.norms[i])
        assert one.code[0] == whole.code[i]


def test_flows_over_numbers_and_bases_that_are_not_normal(vectors):
    x = torch.randn(60, 3)
    found = evidence(vectors, x)
    torch.testing.assert_close(
        found.bits[:, 0].float(), -vectors.log_prob(x).detach() / (3 * math.log(2))
    )
    assert found.code is None
    assert Detector(found, "combined").reference.shape == (60, 2)
    with pytest.raises(ConfigError, match="picture"):
        Detector(found, "complexity")
    base = diffeo.distributions.StudentT((3,))
    other = diffeo.Flow(vectors.transform, base)
    torch.testing.assert_close(
        evidence(other, x).bits[:, 0].float(), -other.log_prob(x).detach() / (3 * math.log(2))
    )


def test_the_code_of_a_simple_picture_is_short():
    flow = diffeo.zoo.build("nice", (3, 16, 16), size="tiny", levels=256)
    plain, noisy = torch.full((1, 3, 16, 16), 7).byte(), torch.randint(0, 256, (1, 3, 16, 16))
    found = evidence(flow, torch.cat((plain, noisy.byte())), draws=1).code
    assert found[0] < 1.5
    assert 8 < found[1] < 10


# -- p-values ---------------------------------------------------------------------------------------------------------

RULES = {
    "high": (Statistic(lambda found: found.bits, "high", ""), 1),
    "far": (FAR, 1),
    "far, three numbers": (FAR, 3),
}


def trials(rule, draw, n=19, times=500):
    """p-values of a new event beside as many references."""
    statistic, k = RULES[rule]
    values = draw((times, n + 1, k))
    found = [
        Detector(numbers(v[:-1]), statistic).p_value(numbers(v[-1:]))
        for v in torch.as_tensor(values)
    ]
    return torch.cat(found).numpy()


@pytest.mark.parametrize("rule", RULES)
def test_p_values_of_ordinary_events_are_uniform(rule):
    """On 1/20, 2/20, ..., 1, however the numbers are distributed."""
    from scipy.stats import kstest

    random = np.random.default_rng(0)
    p = trials(rule, lambda shape: random.standard_t(2, shape) + random.exponential(size=shape))
    spread = p - random.uniform(0, 1 / 20, len(p))
    assert kstest(spread, "uniform").pvalue > 0.01
    assert p.min() == pytest.approx(1 / 20)
    assert p.max() == pytest.approx(1)


@pytest.mark.parametrize("rule", RULES)
def test_with_ties_p_values_are_never_too_small(rule):
    random = np.random.default_rng(1)
    p = trials(rule, lambda shape: random.integers(0, 4, shape).astype(float))
    for i in range(1, 20):
        a = i / 20
        assert (p <= a + 1e-9).mean() <= a + 4 * math.sqrt(a * (1 - a) / len(p))


def test_a_p_value_counts_what_is_at_least_as_strange():
    detector = Detector(numbers([1.0, 2.0, 2.0, 3.0]), RULES["high"][0])
    p = detector.p_value(numbers([0.0, 1.5, 2.0, 3.5]))
    torch.testing.assert_close(p, torch.tensor([5, 4, 4, 1], dtype=torch.float64) / 5)


def test_the_stranger_the_smaller():
    reference = numbers(torch.randn(200, 1, generator=torch.Generator().manual_seed(0)))
    ladder = torch.linspace(0, 6, 50)[:, None]
    high = Detector(reference, RULES["high"][0]).p_value(numbers(ladder))
    assert (high.diff() <= 0).all()
    far = Detector(reference, FAR)
    for side in (1, -1):
        found = numbers(reference.bits.mean() + side * ladder)
        assert (far.p_value(found).diff() <= 0).all()
        assert (far.score(found).diff() > 0).all()
        assert far.p_value(found)[-1] == 1 / 201


def test_impossible_events_are_the_strangest(glow):
    x = torch.randint(0, 9, (40, 1, 4, 4)).byte()
    detectors = [Detector(evidence(glow, x), name) for name in STATISTICS]
    odd = torch.full((1, 1, 4, 4), 9).byte()
    for detector in detectors:
        assert detector.p_value(evidence(glow, odd))[0] == 1 / 41
        assert detector.score(evidence(glow, odd))[0] == math.inf


def test_auroc():
    random = np.random.default_rng(0)
    a, b = random.integers(2, 12, 80), random.integers(0, 10, 120)
    expected = np.mean((a[:, None] > b) + 0.5 * (a[:, None] == b))
    value, error = auroc(torch.tensor(a), torch.tensor(b))
    assert value == pytest.approx(expected)
    again = [
        auroc(torch.tensor(random.choice(a, 80)), torch.tensor(random.choice(b, 120)))[0]
        for _ in range(200)
    ]
    assert error == pytest.approx(np.std(again), rel=0.2)
    assert auroc(torch.tensor(b), torch.tensor(a)) == pytest.approx((1 - value, error))


# -- on digits --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def digits():
    data = diffeo.data.load("digits")
    flow = diffeo.load("digits-glow")
    generator = torch.Generator().manual_seed(0)
    sets = {
        "ordinary": data.test[:120],
        "upside down": data.test[:120].flip(2),
        "noise": torch.randint(0, 17, (20, 1, 8, 8), generator=generator).byte(),
        "flat": torch.full((1, 1, 8, 8), 8).byte(),
    }
    found = {name: evidence(flow, x, draws=1) for name, x in sets.items()}
    return evidence(flow, data.validation, draws=1), found


@pytest.mark.parametrize("statistic", STATISTICS)
def test_strange_digits_are_found(digits, statistic):
    reference, found = digits
    detector = Detector(reference, statistic)
    flagged = {name: (detector.p_value(f) <= 0.05).double().mean() for name, f in found.items()}
    assert flagged["ordinary"] < 0.12
    assert flagged["noise"] == flagged["flat"] == 1
    assert flagged["upside down"] > flagged["ordinary"] + 0.05


# -- mistakes ---------------------------------------------------------------------------------------------------------


def test_mistakes_are_one_sentence(glow):
    x = torch.randint(0, 9, (12, 1, 4, 4)).byte()
    found = evidence(glow, x)
    conditional = diffeo.zoo.build("realnvp", (3,), context_shape=(2,), size="tiny")
    few = Evidence(found.bits[:3], found.norms[:3], found.code[:3])
    lost = replace(found, bits=found.bits * math.inf)
    wrong = [
        (lambda: evidence(conditional, torch.zeros(4, 3)), InputError, "conditional"),
        (lambda: evidence(glow, x[0]), InputError, "expected events of shape"),
        (lambda: evidence(glow, x[:0]), InputError, "expected events of shape"),
        (lambda: evidence(glow, x.float()), InputError, "integers"),
        (lambda: evidence(glow, x, draws=0), InputError, "draws"),
        (lambda: Detector(found, "magic"), ConfigError, "there is no statistic 'magic'"),
        (lambda: Detector(few), InputError, "12 events or more, got 3"),
        (lambda: Detector(lost, "log_prob"), InputError, "impossible"),
        (lambda: Detector(found, replace(FAR, strange="high")), ConfigError, "one number"),
    ]
    for call, kind, words in wrong:
        with pytest.raises(kind, match=words) as caught:
            call()
        assert isinstance(caught.value, DiffeoError)


# -- the measurement --------------------------------------------------------------------------------------------------


def test_a_row_of_the_measurement_is_a_line_of_the_page(digits):
    script, tables = loaded("scripts", "anomaly"), loaded("docs", "measured_anomaly")
    run = SimpleNamespace(name="digits", evidence=lambda x: digits[1]["noise"])
    detectors = {name: Detector(digits[0], name) for name in STATISTICS}
    run.known = detectors, digits[1]["ordinary"]
    row, ordinary = script.measure(run, "noise"), script.measure(run)
    assert row["auroc"]["combined"] == (1.0, 0.0)
    assert sum(row["histogram"]) == row["pictures"] == 20
    facts = {"model": "glow", "reference": 140}
    document = {"runs": {"digits": facts | {"ordinary": ordinary, "sets": {"noise": row}}}}
    text = tables.anomaly(document, "auroc digits")
    assert f"| noise | {row['bits']:.2f} | 1.000 ± 0.000 |" in text
    assert "| noise | 100.0 % |" in tables.anomaly(document, "flagged digits")
    assert tables.anomaly(document, "auroc mnist") == "*not measured yet*"
    assert set(tables.STATISTICS) == set(STATISTICS)


def test_strange_sets_are_brought_to_the_events_of_a_flow():
    script = loaded("scripts", "anomaly")
    ink = np.zeros((2, 28, 28, 1), np.uint8)
    ink[:, 10:18, 10:18] = 255
    framed = script.fitted(ink, (3, 32, 32), 256, framed=True)
    assert framed.shape == (2, 3, 32, 32)
    assert (framed[:, :, 12:20, 12:20] == 255).all()
    assert framed.sum() == 2 * 3 * 64 * 255
    assert script.fitted(ink, (1, 8, 8), 17, framed=True).max() == 16
    smooth = script.blurred(framed)
    assert smooth.dtype == torch.uint8
    assert smooth.max() == 255
    assert smooth.double().std() < framed.double().std()
