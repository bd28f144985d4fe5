"""MultiTask Imitation: one policy pre-trained on the demonstrations of all tasks.

Source: GMPS, section 5.3 and Fig. 6. It has the network, the demonstrations, the roll-outs per
adaptation step and the inner estimator of GMPS; only the meta-objective is missing. Fine-tuning
takes its best scalar step size, chosen on the training tasks.
"""

from __future__ import annotations

import torch

from gmps.demos import DemoSet
from gmps.learned import Learned, start
from gmps.losses import behaviour_cloning
from gmps.runs import Run
from gmps.train import Report, settle_step_size

_LOG_EVERY = 100


def train_imitation(
    demos: DemoSet, run: Run, report: Report = lambda iteration, scalars: None
) -> Learned:
    """Behaviour cloning, full batch, Adam; returns what was learned, its step size chosen."""
    learned, optimizer, first = run.restore(start(run.config, demos))
    config, theta = learned.config, learned.meta.theta
    expert_actions = demos.all()
    for iteration in range(first, config.imitation_steps):
        dist = learned.policy.dist(theta, expert_actions.observation)
        loss = behaviour_cloning(
            dist, expert_actions.action, expert_actions.weight, kind=config.outer_loss
        )
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(learned.meta.leaves(), config.max_grad_norm)
        optimizer.step()
        if (iteration + 1) % _LOG_EVERY == 0 or iteration + 1 == config.imitation_steps:
            scalars = {"loss": float(loss.detach()), "env_steps": float(learned.env_steps)}
            run.log(iteration, scalars)
            report(iteration, scalars)
            run.save(learned, optimizer, iteration + 1)
    return settle_step_size(learned, optimizer, run, config.imitation_steps)
