"""Adam written out against torch's, and its state through a checkpoint's tensors."""

import torch

from demokit.learning.optimizer import AdamState, adam, optimizer_tensors, restore_optimizer


def normal(*shape, seed=2):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_adam_is_torchs():
    params = {"w": normal(3, 4), "b": normal(4)}
    theirs = [p.clone().requires_grad_() for p in params.values()]
    optimizer = torch.optim.Adam(theirs, lr=0.01)
    ours, count = AdamState.fresh(params), torch.zeros(1, dtype=torch.float64)
    rng = torch.Generator().manual_seed(3)
    for _ in range(20):
        for p in theirs:
            p.grad = torch.randn(p.shape, generator=rng)
        optimizer.step()
        adam(ours, dict(zip(params, [p.grad for p in theirs], strict=True)), count.add_(1), 0.01)
    for p, now in zip(theirs, params.values(), strict=True):
        torch.testing.assert_close(now, p.detach(), rtol=1e-5, atol=1e-7)
    torch.testing.assert_close(ours.second["w"], optimizer.state[theirs[0]]["exp_avg_sq"])


def stepped(optimizer, params, seed):
    params[0].grad = normal(5, seed=seed)
    optimizer.step()


def test_a_restored_optimizer_takes_the_same_steps():
    before, after = ([normal(5).requires_grad_()] for _ in range(2))
    optimizer = torch.optim.Adam(before, lr=0.1)
    stepped(optimizer, before, 3)
    kept = {name: tensor.clone() for name, tensor in optimizer_tensors(optimizer).items()}
    with torch.no_grad():
        after[0].copy_(before[0])
    restored = torch.optim.Adam(after, lr=0.1)
    restore_optimizer(restored, kept)
    stepped(optimizer, before, 4)
    stepped(restored, after, 4)
    assert torch.equal(before[0], after[0])
