"""What a run logs of every iteration, read back from the device once an interval."""

from typing import Any

import torch
from mmengine.hooks import RuntimeInfoHook
from torch import Tensor


class ScalarsHook(RuntimeInfoHook):
    """mmengine's hook for losses and learning rates; the losses of an interval take one transfer.

    mmengine asks for each loss by itself in every iteration, and each time the host waits for the device. The values
    are the same, and so is what lies in the message hub whenever the log is written or a checkpoint is.

    Args:
        interval: iterations between two lines of the log.
    """

    def __init__(self, interval: int) -> None:
        super().__init__()
        self.interval = interval
        self._waiting: list[dict[str, Tensor]] = []

    def after_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        """Keep the losses, and the norm of the gradients; hand them on where a line of the log is due."""
        grad_norm = runner.optim_wrapper.grad_norm
        values = outputs if grad_norm is None else {**outputs, "grad_norm": grad_norm}
        self._waiting.append({name: value.detach() for name, value in values.items()})
        done = runner.iter + 1
        if done % self.interval == 0 or done == runner.max_iters:
            self._flush(runner)

    def _flush(self, runner: Any) -> None:
        """Put what waits into the message hub."""
        if self._waiting:
            flat = torch.stack([value.float() for values in self._waiting for value in values.values()]).tolist()
            names = [name for values in self._waiting for name in values]
            for name, value in zip(names, flat, strict=True):
                runner.message_hub.update_scalar(f"train/{name}", value)
            self._waiting = []

    def before_save_checkpoint(self, runner: Any, checkpoint: dict[str, Any]) -> None:
        """Let the checkpoint have the iterations so far."""
        self._flush(runner)
        checkpoint["message_hub"] = runner.message_hub.state_dict()
