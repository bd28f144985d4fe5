"""MultiTask Imitation: one policy pre-trained on the demonstrations of all tasks.

Source: GMPS, section 5.3 and Fig. 6. It has the network, the demonstrations, the roll-outs per
adaptation step and the inner estimator of GMPS; only the meta-objective is missing. Fine-tuning
takes its best scalar step size, chosen on the training tasks.
"""

from __future__ import annotations

import numpy as np

from gmps.experience.demos import DemoSet
from gmps.experience.observation import thinned
from gmps.methods.gmps.algorithm import settle_step_size
from gmps.methods.gmps.learner import Learned
from gmps.methods.gmps.pretrain import imitation_step
from gmps.methods.gmps.start import start
from gmps.progress import ITERATIONS, Report, unheard
from gmps.runs.folder import Run

_LOG_EVERY = 100


def train_imitation(demos: DemoSet, run: Run, report: Report = unheard) -> Learned:
    """Behaviour cloning with Adam; returns what was learned, its step size chosen."""
    learned, optimizer, first = run.restore(start(run.config, demos))
    config, part = learned.config, run.world.part(len(demos.tasks))
    everything = demos.to(run.device).of_tasks(part.own).all()
    report(ITERATIONS, first, config.imitation_steps)
    for iteration in range(first, config.imitation_steps):
        rng = np.random.default_rng([config.seed, iteration])
        expert_actions = thinned(everything, config.outer_stride, rng).pooled()
        loss = imitation_step(learned, optimizer, expert_actions, part)
        if (iteration + 1) % _LOG_EVERY == 0 or iteration + 1 == config.imitation_steps:
            learned.meta.require_finite(iteration)
            scalars = {"loss": loss, "env_steps": float(learned.env_steps)}
            run.log(iteration, scalars)
            run.save(learned, optimizer, iteration + 1)
        report(ITERATIONS, iteration + 1, config.imitation_steps)
    return settle_step_size(learned, optimizer, run, report)
