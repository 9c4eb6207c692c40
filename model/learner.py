"""Backpropagation through time, stateful and truncated where a task's sequences go on from update to update.

Every stream of text is read on and on, the state carried from update to update. In the terms of Williams & Peng 1990,
an update is made every k1 = `stride` steps and its gradient flows through the last k2 = `steps` of them. Where both are
equal, the chunks of two updates touch. Where k1 < k2 they overlap: an update runs its k2 steps anew, with the weights
as they are now, from the state before them, and learns from the last k1.

Other tasks learn from sequences that begin and end within an update, B of them.

Axes: T time, B batch (streams).
"""

import math
from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor
from torch.nn.utils import get_total_norm
from torch.optim import AdamW

from carousel.errors import CarouselError
from model import randomness
from model.averaging import averaged, begun
from model.carried import Carried, detached, joined, named, restored, split
from model.checkpoint import part, weights
from model.clipping import clip
from model.not_finite import first_not_finite
from model.precision import fabric_precision
from model.processes import Processes, ProcessesError
from model.recipe import Recipe
from model.schedule import learning_rate
from model.tasks.task import Data, TaskModel
from model.tasks.tasks import task_of
from model.training_recipe import TrainingRecipe

Inputs = tuple[Tensor, ...]

# The second moment follows the gradients of some twenty updates: AdamW's customary 0.999 is slow for short trainings
# (characters-demo at a learning rate of 6e-3: 1.870 bits per character, with 0.95 1.850).
_BETAS = (0.9, 0.95)


class DivergedError(CarouselError):
    """The loss or its gradient is no longer a number."""


class Learner:
    """A model with what changes it: the optimiser, the task's batches and the state that is carried between them.

    Args:
        recipe: Task, sizes, seed and plan.
        data: What the task learns from.
        processes: Those that share the streams; None: as this one was started.

    Raises:
        DataError: the data is too short for the plan.
        PrecisionError: this machine has no such precision.
        ProcessesError: the streams cannot be shared evenly.
    """

    def __init__(self, recipe: Recipe, data: Data, processes: Processes | None = None) -> None:
        self._plan = recipe.training
        self.task = task_of(recipe, data)
        self.processes = processes or Processes(fabric_precision(self._plan.precision))
        fabric, streams = self.processes.fabric, _share(self._plan, self.processes)
        torch.manual_seed(self._plan.seed)
        self.model = self.task.new_model()
        randomness.seed(self._plan.seed, self.processes)
        self._average = averaged(self.model, self._plan, self.processes.device)
        self._optimizer = _optimizer(self.model, self._plan)
        self._run_model, self._run_optimizer = fabric.setup(self.model, self._optimizer)
        self._state: Carried = self.model.initial_state(streams)
        self._precision = fabric.strategy.precision
        self._scaler: torch.amp.GradScaler | None = getattr(self._precision, "scaler", None)

    @property
    def summary(self) -> str:
        """The number of parameters, the precision, the device and how many processes."""
        parameters = sum(parameter.numel() for parameter in self.model.parameters())
        together = f", {self.processes.count} processes" if self.processes.count > 1 else ""
        return f"{parameters} parameters, {self._precision.precision} on {self.processes.device}{together}"

    @property
    def evaluated(self) -> TaskModel:
        """The model that counts: with the averaged weights, once there is an average."""
        if self._average is None or not self._average.n_averaged:
            return self.model
        return cast(TaskModel, self._average.module)

    def update(self, number: int, course: Sequence[float] = ()) -> float:
        """Read the next batch, of streams their next chunk, and improve the weights once.

        Args:
            number: Updates made before this one; it says where the streams and the learning rate are.
            course: What the evaluations so far gave, nats; some schedules and averages depend on it.

        Returns:
            The loss before the update, as the task counts it.

        Raises:
            DivergedError: the loss or its gradient is not finite; the weights were left alone.
        """
        parts = self._parts(number)
        self._run_optimizer.zero_grad()
        done = [self._backward(*part, last=k == len(parts)) for k, part in enumerate(parts, start=1)]
        nats = self.processes.mean(sum(loss for loss, _ in done))
        self._bound_gradient(number, nats)
        for group in self._optimizer.param_groups:
            group["lr"] = learning_rate(self._plan, number, course)
        self._run_optimizer.step()
        if self.task.carries:
            self._state = joined([state for _, state in done])
        if self._average is not None and begun(self._plan, course):
            self._average.update_parameters(self.model)
        return nats

    def pack(self) -> dict[str, Tensor]:
        """Everything that must be known to go on as if there had been no stop, by name.

        All processes call it together, and each gets the state of all streams.
        """
        tensors = weights(self.evaluated)
        if self._average is not None and self._average.n_averaged:
            tensors |= {f"trained.{name}": tensor for name, tensor in self.model.state_dict().items()}
            tensors["average.updates"] = self._average.n_averaged
        for name, parameter in self.model.named_parameters():
            moments = self._optimizer.state[parameter]
            tensors |= {f"optimizer.{name}.{key}": moment for key, moment in moments.items()}
        if self._scaler is not None:
            tensors |= {f"scaler.{key}": torch.tensor(n) for key, n in self._scaler.state_dict().items()}
        if self.task.carries:
            every = self.processes.everyones
            tensors |= {f"state.{name}": every(value) for name, value in named(self._state).items()}
        return tensors | {f"rng.{kind}": value for kind, value in randomness.packed(self.processes).items()}

    def unpack(self, tensors: dict[str, Tensor]) -> None:
        """Put everything back where `pack` took it from; bit for bit if there are as many processes as there were."""
        trained, evaluated = part(tensors, "trained."), part(tensors, "model.")
        self.model.load_state_dict(trained or evaluated)
        if self._average is not None and trained:
            self._average.module.load_state_dict(evaluated)
            self._average.n_averaged.copy_(tensors["average.updates"])
        device = self.processes.device
        for name, parameter in self.model.named_parameters():
            moments = part(tensors, f"optimizer.{name}.")
            self._optimizer.state[parameter] = {key: moment.to(device) for key, moment in moments.items()}
        if self._scaler is not None:
            self._scaler.load_state_dict({key: n.item() for key, n in part(tensors, "scaler.").items()})
        if self.task.carries:
            own = {name: self.processes.own(value) for name, value in part(tensors, "state.").items()}
            self._state = restored(own, like=self._state)
        randomness.unpack(part(tensors, "rng."), self.processes)

    def _parts(self, number: int) -> list[tuple[Inputs, Tensor, Carried]]:
        """Inputs, targets and state of the parts of this process's streams."""
        parts, batch = self._plan.accumulate, self.task.batch(number)
        inputs = zip(*(self.processes.own(tensor).chunk(parts) for tensor in batch.inputs), strict=True)
        targets = self.processes.own(batch.targets).chunk(parts)
        return list(zip(inputs, targets, split(self._state, parts), strict=True))

    def _backward(
        self, inputs: Inputs, targets: Tensor, state: Carried, *, last: bool
    ) -> tuple[float, Carried]:
        """Add the gradient of one part; its share of the loss, and its state where the next chunk begins."""
        learnt = self._plan.moves_by
        with self.processes.fabric.no_backward_sync(self._run_model, enabled=not last):
            outputs, after = self._run_model(*inputs, state)
            loss = self.task.loss(outputs, targets) / self._plan.accumulate
            self.processes.fabric.backward(loss + self.model.penalty / self._plan.accumulate)
        if learnt < self._plan.steps:
            with torch.no_grad():
                _, after = self._run_model(*(tensor[:, :learnt] for tensor in inputs), state)
        return float(loss.detach()), detached(after)

    def _bound_gradient(self, number: int, nats: float) -> None:
        if self._scaler is not None:
            self._scaler.unscale_(self._optimizer)
        parameters = list(self.model.parameters())
        norm = get_total_norm([one.grad for one in parameters if one.grad is not None])
        if math.isfinite(nats) and math.isfinite(norm):
            clip(parameters, self._plan.clip, self._plan.clip_by, norm)
        elif math.isfinite(nats) and self._scaler is not None and self._scaler.get_scale() > 1:
            pass  # too much for fp16: the scaler makes no step and halves its scale
        else:
            where = first_not_finite(self.model, lambda: self._forward(number))
            raise DivergedError(
                f"update {number}: loss {nats}, gradient {float(norm)}; first not finite: {where}; "
                "try a smaller learning_rate"
            )

    def _forward(self, number: int) -> None:
        for inputs, _, state in self._parts(number):
            self._run_model(*inputs, state)


def _share(plan: TrainingRecipe, processes: Processes) -> int:
    """How many streams each process reads."""
    shares = processes.count * plan.accumulate
    if plan.streams % shares:
        raise ProcessesError(
            f"{processes.count} processes of {plan.accumulate} parts cannot share {plan.streams} streams evenly: "
            f"expected a multiple of {shares}"
        )
    return plan.streams // processes.count


def _optimizer(model: TaskModel, plan: TrainingRecipe) -> AdamW:
    matrices = [parameter for parameter in model.parameters() if parameter.ndim > 1]
    biases = [parameter for parameter in model.parameters() if parameter.ndim == 1]
    groups = [
        {"params": matrices, "weight_decay": plan.weight_decay},
        {"params": biases, "weight_decay": 0.0},
    ]
    return AdamW(groups, lr=plan.learning_rate, betas=_BETAS, fused=True)
