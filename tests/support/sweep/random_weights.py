"""Random weights with which a network's answers depend on all of its layers and on the picture, as trained ones do."""

from __future__ import annotations

import copy
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

SPREAD = 3.0
"""The usual standard deviation of a label's logits over the pictures."""


class Reference(NamedTuple):
    """What a network answers."""

    probabilities: NDArray[np.float64]
    """[N, K] in float32 arithmetic, as its users have it."""
    rounding: float | None
    """How far float64 is from that: the largest difference of two probabilities; None if it does not run in float64."""


def randomise(model: Any, inputs: Any, head: Any, spread: float = SPREAD) -> None:
    """Give *model* random weights of trained sizes, so that its logits for *inputs* [N, C, H, W] are spread.

    What libraries begin with is no test: norms that do nothing, branches that are scaled by 1e-6, and weights so small
    that every picture gets the same answer.

    Args:
        model: A torch module, of which the last linear layers are in *head*.
        inputs: The pictures.
        head: A list of linear layers, whose weights and biases spread the logits.
        spread: The standard deviation of a label's logits over the pictures.
    """
    import torch

    random = torch.Generator().manual_seed(17)

    def uniform(parameter: Any, low: float, high: float) -> None:
        parameter.copy_(torch.empty_like(parameter).uniform_(low, high, generator=random))

    with torch.no_grad():
        for name, parameter in model.named_parameters():
            part = name.rpartition(".")[2]
            if parameter.ndim > 1 and parameter[0].numel() > 1 and part == "weight":
                # As Kaiming: what a layer gets and what it gives are of the same size.
                size = parameter[0].numel() ** -0.5
                if float(parameter.std()) < size:
                    parameter.copy_(torch.empty_like(parameter).normal_(0, size, generator=random))
            elif parameter.ndim == 1 and part == "weight":
                uniform(parameter, 0.7, 1.3)
            elif part == "bias":
                parameter.add_(torch.empty_like(parameter).normal_(0, 0.1, generator=random))
            elif float(parameter.abs().max()) <= 1e-3 or "gamma" in part or "lambda" in part:
                uniform(parameter, 0.3, 0.9)
        norms = [module for module in model.modules() if hasattr(module, "running_var")]
        for norm in norms:
            norm.train()
            norm.momentum = None
        if norms:
            model(inputs)
        for norm in norms:
            norm.eval()
        # A network with several heads answers with their mean.
        factor = spread / max(float(model(inputs).std(0).mean()), 1e-3)
        for layer in head:
            layer.weight.mul_(factor)
        mean = model(inputs).mean(0)
        for layer in head:
            layer.bias.sub_(mean)


def heads_of(classifier: Any, labels: int) -> list[Any]:
    """The linear layers in *classifier*, a torch module or several, that give as many numbers as there are *labels*.

    A convolution of 1x1 is one, too. LookupError if there is none.
    """
    import torch

    modules = classifier if isinstance(classifier, (tuple, list)) else [classifier]
    found = [
        layer
        for module in modules
        for layer in module.modules()
        if labels == getattr(layer, "out_features", getattr(layer, "out_channels", None))
        and isinstance(layer, (torch.nn.Linear, torch.nn.Conv2d))
    ]
    if not found:
        raise LookupError("it has no classifier")
    return found


def reference_of(model: Any, inputs: Any) -> Reference:
    """What *model* answers for *inputs*, one by one as its users ask it."""
    import torch

    def probabilities(network: Any, tensors: Any) -> NDArray[np.float64]:
        with torch.inference_mode():
            rows = torch.cat([network(tensor[None]) for tensor in tensors])
        return torch.softmax(rows.double(), 1).numpy()

    found = probabilities(model, inputs)
    try:
        exact = probabilities(copy.deepcopy(model).double(), inputs.double())
    except (RuntimeError, TypeError):
        return Reference(found, None)
    return Reference(found, float(np.abs(found - exact).max()))
