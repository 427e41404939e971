"""Our attacks against those of adversarial-robustness-toolbox, on the same network."""

import warnings

import numpy as np
import pytest
import torch
from torch import nn

from contraction_nets import ImplicitNetwork, attack, fit
from contraction_nets.robustness.attacks import Pgd
from contraction_nets.training.data import load_data


@pytest.fixture(scope="module")
def library():
    # What it warns of while it is imported is not ours to mend.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pytest.importorskip(
            "art", reason="needs adversarial-robustness-toolbox, the extra 'attacks'"
        )
        from art.attacks.evasion import FastGradientMethod, ProjectedGradientDescent
        from art.estimators.classification import PyTorchClassifier
    return PyTorchClassifier, FastGradientMethod, ProjectedGradientDescent


@pytest.fixture(scope="module")
def trained():
    torch.manual_seed(0)
    network = ImplicitNetwork(64, 40, 10)
    data = load_data("digits")
    fit(network, data, epochs=8, learning_rate=1e-2, lipschitz_weight=1e-3, audit=False)
    network.layer.tol = network.layer.backward_tol = 1e-6
    return network.eval(), data.test_inputs, data.test_targets


def adversarial(library, network, x, y, kind, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        classifier = library[0](
            network, nn.CrossEntropyLoss(), (64,), 10, clip_values=(0.0, 1.0), device_type="cpu"
        )
        made = library[kind](classifier, norm=np.inf, batch_size=400, **options)
        return torch.from_numpy(made.generate(x.numpy(), y.numpy()))


@pytest.mark.parametrize("epsilon", [0.05, 0.1])
def test_fgsm_is_the_same_sample_by_sample(library, trained, epsilon):
    network, x, y = trained
    theirs = adversarial(library, network, x, y, 1, eps=epsilon)
    ours = attack(network, x, y, epsilon, method="fgsm")
    with torch.no_grad():
        lost = network(theirs).argmax(dim=1) != y
    assert torch.equal(ours.success, lost)
    both = ours.success & (ours.clean_labels == y)
    assert both.sum() > 10
    torch.testing.assert_close(ours.inputs[both], theirs[both], rtol=0, atol=1e-6)


@pytest.mark.parametrize("epsilon", [0.05, 0.1])
def test_pgd_finds_as_many(library, trained, epsilon):
    network, x, y = trained
    theirs = adversarial(
        library, network, x, y, 2, eps=epsilon, eps_step=epsilon / 5, max_iter=40,
        num_random_init=1, verbose=False,
    )  # fmt: skip
    with torch.no_grad():
        rate = (network(theirs).argmax(dim=1) != y).double().mean()
    cheap = attack(network, x, y, epsilon, method=Pgd(targets=0)).success.double().mean()
    assert abs(cheap - rate) <= 0.01
    # Theirs is one run on the cross-entropy; a run for each class never finds less.
    assert attack(network, x, y, epsilon).success.double().mean() >= rate
