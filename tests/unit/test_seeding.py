import numpy as np
import torch
from ffnfold.seeding import seeded_generator, torch_seed


def test_the_same_seed_and_purpose_give_the_same_numbers():
    first, second = (seeded_generator(7, "recovery", 0).integers(2**31, size=20) for _ in range(2))
    assert (first == second).all()


def test_each_seed_and_each_purpose_has_its_own_stream():
    streams = [(7, "recovery", 0), (7, "recovery", 1), (8, "recovery", 0), (7, "sentiment", 0), (7,)]
    draws = {seeded_generator(*stream).integers(2**62) for stream in streams}
    assert len(draws) == len(streams)


def test_a_purpose_is_its_text():
    # A wildcard is text where a number may be given elsewhere: both must name one stream.
    assert seeded_generator(7, "recovery", "0").integers(2**62) == seeded_generator(7, "recovery", 0).integers(2**62)


def test_the_numbers_are_the_same_on_every_machine():
    assert seeded_generator(20260101, "pretraining").integers(1000, size=5).tolist() == [451, 91, 305, 279, 105]


def test_torch_seed_puts_the_generator_back():
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    with torch_seed(np.random.default_rng(0)):
        first = torch.rand(3)
    assert torch.equal(torch.rand(3), expected)
    with torch_seed(np.random.default_rng(0)):
        assert torch.equal(torch.rand(3), first)
    with torch_seed(np.random.default_rng(1)):
        assert not torch.equal(torch.rand(3), first)
