"""The training loop: mmengine's, which forgets an evaluation that a run was killed in."""

from mmdet.registry import LOOPS
from mmengine.runner import IterBasedTrainLoop


@LOOPS.register_module()
class TrainLoop(IterBasedTrainLoop):
    """Iterations with evaluations in between; a run that resumes where an evaluation is due begins with it.

    A checkpoint is written before each evaluation (`checkpoints.py`). Whether the evaluation had been finished does
    not matter: the log is cut back to the checkpoint (`logs.py`), and the same weights give the same result.
    """

    def evaluates(self, done: int) -> bool:
        """Whether an evaluation follows after `done` iterations."""
        return self.runner.val_loop is not None and (done % self.val_interval == 0 or done == self.max_iters)

    def run(self):
        """Train."""
        if self.iter > 0 and self.evaluates(self.iter):
            self.runner.val_loop.run()
        return super().run()
