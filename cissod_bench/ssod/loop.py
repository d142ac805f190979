"""mmengine's training loop, which also says when it evaluates."""

from mmengine.runner import IterBasedTrainLoop


class TrainLoop(IterBasedTrainLoop):
    """Iterations with evaluations in between."""

    def evaluates(self, done: int) -> bool:
        """Whether an evaluation follows after `done` iterations."""
        return self.runner.val_loop is not None and (done % self.val_interval == 0 or done == self.max_iters)
