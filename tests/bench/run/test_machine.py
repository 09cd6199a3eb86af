"""What a run ran on."""

from dnm_sklearn.bench.run import machine


def test_revision_and_threads():
    revision = machine.git_revision()
    assert revision is None or len(revision.rstrip("+")) == 40
    import torch

    before = torch.get_num_threads()
    with machine.limited_threads(27_000, 128):
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == before
    with machine.limited_threads(70_000, 512):
        assert torch.get_num_threads() == before
