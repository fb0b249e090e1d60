import torch

from rlrun.learning.metrics import summarize


def test_numbers_are_averaged_over_minibatches_and_maxima_kept():
    history = [
        {"policy/kl": torch.tensor([1.0, 2.0]), "policy/ratio_max": torch.tensor([1.5, 3.0])},
        {"policy/kl": torch.tensor([6.0]), "policy/ratio_max": torch.tensor([2.0])},
    ]
    means = summarize(history)
    assert means == {"policy/kl": torch.tensor(3.0), "policy/ratio_max": torch.tensor(3.0)}


def test_nothing_was_learned_nothing_is_said():
    assert summarize([]) == {}
