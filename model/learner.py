"""Stateful, truncated backpropagation through time.

Every stream of text is read chunk by chunk. The state goes on from chunk to chunk, gradients do not: k1 = k2 = T in
the terms of Williams & Peng 1990.
"""

import math

import torch
from lightning_fabric import Fabric
from torch import Tensor
from torch.nn.utils import clip_grad_norm_
from torch.optim import AdamW

from carousel.errors import CarouselError
from model.cells.lstm import LSTMState
from model.checkpoint import part, weights
from model.data.corpus import Corpus
from model.data.streams import Streams
from model.precision import fabric_precision
from model.recipe import Recipe, TrainingRecipe
from model.schedule import one_cycle
from model.tasks.characters import CharacterModel, cross_entropy

# The second moment follows the gradients of some twenty updates: AdamW's customary 0.999 is slow for short trainings
# (characters-demo at a learning rate of 6e-3: 1.870 bits per character, with 0.95 1.850).
_BETAS = (0.9, 0.95)


class DivergedError(CarouselError):
    """The loss or its gradient is no longer a number."""


class Learner:
    """A model with what changes it: the optimiser, the streams of text and their carried state.

    Args:
        recipe: Sizes, seed and plan.
        corpus: The text.

    Raises:
        DataError: the text is too short for the streams.
    """

    def __init__(self, recipe: Recipe, corpus: Corpus) -> None:
        self._plan = recipe.training
        self._streams = Streams(corpus.training, self._plan.streams, self._plan.steps)
        self._precision = fabric_precision(self._plan.precision)
        self._fabric = Fabric(accelerator="auto", devices=1, precision=self._precision)
        torch.manual_seed(self._plan.seed)
        self.model = CharacterModel(len(corpus.vocabulary.symbols), recipe.model)
        self._optimizer = _optimizer(self.model, self._plan)
        self._run_model, self._run_optimizer = self._fabric.setup(self.model, self._optimizer)
        self._state = self.model.stack.initial_state(self._plan.streams)

    @property
    def summary(self) -> str:
        """The number of parameters, the precision and the device."""
        parameters = sum(parameter.numel() for parameter in self.model.parameters())
        return f"{parameters} parameters, {self._precision} on {self._fabric.device}"

    def update(self, number: int) -> float:
        """Read the next chunk of every stream and improve the weights once.

        Args:
            number: Updates made before this one; it says where the streams and the learning rate are.

        Returns:
            The loss before the update, in nats per character.

        Raises:
            DivergedError: the loss or its gradient is not finite; the weights were left alone.
        """
        inputs_BT, targets_BT = self._fabric.to_device(self._streams.chunk(number))
        logits_BTV, state = self._run_model(inputs_BT, self._state)
        loss = cross_entropy(logits_BTV, targets_BT)
        self._run_optimizer.zero_grad()
        self._fabric.backward(loss)
        norm = float(clip_grad_norm_(self.model.parameters(), self._plan.clip))
        nats = float(loss.detach())
        if not math.isfinite(nats + norm):
            raise DivergedError(f"update {number}: loss {nats}, gradient {norm}; try a smaller learning_rate")
        self._set_learning_rate(number)
        self._run_optimizer.step()
        self._state = tuple(LSTMState(*(segment.detach() for segment in layer)) for layer in state)
        return nats

    def pack(self) -> dict[str, Tensor]:
        """Everything that must be known to go on as if there had been no stop, by name."""
        tensors = weights(self.model)
        for name, parameter in self.model.named_parameters():
            moments = self._optimizer.state[parameter]
            tensors |= {f"optimizer.{name}.{key}": moment for key, moment in moments.items()}
        for layer, carried in enumerate(self._state):
            tensors |= {
                f"state.layer{layer}.{segment}": value for segment, value in carried._asdict().items()
            }
        tensors["rng.cpu"] = torch.get_rng_state()
        if self._fabric.device.type == "cuda":
            tensors["rng.cuda"] = torch.cuda.get_rng_state()
        return tensors

    def unpack(self, tensors: dict[str, Tensor]) -> None:
        """Put everything back where `pack` took it from."""
        device = self._fabric.device
        self.model.load_state_dict(part(tensors, "model."))
        for name, parameter in self.model.named_parameters():
            moments = part(tensors, f"optimizer.{name}.")
            self._optimizer.state[parameter] = {key: moment.to(device) for key, moment in moments.items()}
        carried = (part(tensors, f"state.layer{layer}.") for layer in range(len(self._state)))
        self._state = tuple(
            LSTMState(**{segment: value.to(device) for segment, value in layer.items()}) for layer in carried
        )
        torch.set_rng_state(tensors["rng.cpu"])
        if "rng.cuda" in tensors and device.type == "cuda":
            torch.cuda.set_rng_state(tensors["rng.cuda"])

    def _set_learning_rate(self, number: int) -> None:
        rate = self._plan.learning_rate * one_cycle(number / self._plan.updates, self._plan.warm_up)
        for group in self._optimizer.param_groups:
            group["lr"] = rate


def _optimizer(model: CharacterModel, plan: TrainingRecipe) -> AdamW:
    matrices = [parameter for parameter in model.parameters() if parameter.ndim > 1]
    biases = [parameter for parameter in model.parameters() if parameter.ndim == 1]
    groups = [
        {"params": matrices, "weight_decay": plan.weight_decay},
        {"params": biases, "weight_decay": 0.0},
    ]
    return AdamW(groups, lr=plan.learning_rate, betas=_BETAS, fused=True)
