"""What commands ask of a running daemon beyond jobs: to use another model, to cancel jobs.

An order is a file in .fluxdrop/requests/ and its answer one in .fluxdrop/answers/, both moved there
whole.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial

import msgspec

from fluxdrop import durable, faults
from fluxdrop.errors import FluxdropError
from fluxdrop.intake.claim import new_job_id
from fluxdrop.layout import Root, holder
from fluxdrop.logs import get_logger

log = get_logger("fluxdrop.daemon")

_SUFFIX = ".order.json"
_LOOK_SECONDS = 0.1


class ModelOrder(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="model"):
    """Use this model from now on."""

    model: str


class CancelOrder(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="cancel"):
    """End these jobs, as far as they are unfinished."""

    job_ids: list[str]


Order = ModelOrder | CancelOrder


class OrderAnswer(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How it went: all empty when it was done."""

    kind: str = ""
    message: str = ""
    hint: str = ""


def order(root: Root, wanted: Order, on_wait: Callable[[], None]) -> None:
    """Have the daemon that serves *root* do what is *wanted*, and wait until it has.

    Raises FluxdropError when it refuses, or ends meanwhile.
    """
    name = new_job_id()
    path = root.requests / f"{name}{_SUFFIX}"
    answer = root.answers / f"{name}.json"
    served = holder(root)
    durable.write(path, msgspec.json.encode(wanted))
    while not answer.exists():
        # Another one may have begun already, and what the first had taken is lost.
        if served is None or holder(root) != served:
            path.unlink(missing_ok=True)
            raise FluxdropError(f"No daemon serves {root.path}", kind="not-running")
        on_wait()
        time.sleep(_LOOK_SECONDS)
    answered = msgspec.json.decode(answer.read_bytes(), type=OrderAnswer)
    answer.unlink()
    if answered.kind:
        raise FluxdropError(answered.message, hint=answered.hint, kind=answered.kind)


def take_orders(
    root: Root,
    use: Callable[[str, Callable[[FluxdropError | None], None]], None],
    cancel: Callable[[list[str]], None],
) -> None:
    """Hand each order that waits on: to *use*, with what is to be told how it went, or to *cancel*."""
    for path in sorted(root.requests.glob(f"[!.]*{_SUFFIX}")):
        answer = partial(_answer, root, path.name.removesuffix(_SUFFIX))
        try:
            # An Order; the type is inferred from its tag.
            wanted: Order = msgspec.json.decode(path.read_bytes(), type=ModelOrder | CancelOrder)
        except (OSError, msgspec.DecodeError) as error:
            answer(FluxdropError(f"{path} cannot be read: {error}", kind="request"))
        else:
            faults.point("order-read")
            match wanted:
                case ModelOrder(model):
                    use(model, partial(_model_changed, root, model, answer))
                case CancelOrder(job_ids):
                    cancel(job_ids)
                    answer(None)
        path.unlink(missing_ok=True)
        faults.point("order-taken")


def forget_answers(root: Root) -> None:
    """Remove what an earlier daemon answered, whole or not: who asked it knows that it ended."""
    for path in root.answers.iterdir():
        path.unlink()


def _model_changed(
    root: Root,
    model: str,
    answer: Callable[[FluxdropError | None], None],
    error: FluxdropError | None,
) -> None:
    if error is None:
        choose_model(root, model)
        faults.point("model-chosen")
        log.info("model changed", model=model)
    else:
        log.error("the model stays as it was", wanted=model, reason=error.message)
    answer(error)


def _answer(root: Root, name: str, error: FluxdropError | None) -> None:
    answer = OrderAnswer(error.kind, error.message, error.hint) if error else OrderAnswer()
    durable.write(root.answers / f"{name}.json", msgspec.json.encode(answer), sync=False)
    faults.point("order-answered")


def choose_model(root: Root, model: str) -> None:
    """Have *model* used from the next start on too."""
    durable.write(root.model_in_use, f"{model}\n".encode())
