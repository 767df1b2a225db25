"""The Hugging Face hub: how its models are named, and what its library raises as errors for people."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator

from fluxdrop.errors import FluxdropError

HUB_ID = re.compile(
    r"(?P<id>[\w-][\w.-]*/[\w-][\w.-]*)(?:@(?P<revision>(?!.*\.\.)[\w-][\w./-]*))?", re.ASCII
)
"""``OWNER/NAME``, perhaps with ``@REVISION``, in which git allows no ``..``."""

HUB_SECONDS = 10.0
"""How long a request for what the hub has may take."""


class HubUnreachable(Exception):
    """The hub did not answer; the message is the type of the exception that says why."""


@contextlib.contextmanager
def hub_refusals(
    repository: str, revision: str | None, *, missing: str, kind: str
) -> Iterator[None]:
    """Convert what huggingface_hub raises in the ``with`` statement.

    Args:
        repository: The ``OWNER/NAME`` that is asked for.
        revision: The revision that is asked for; None for the default one.
        missing: The message if there is no such repository.
        kind: The kind of the errors.

    Raises:
        FluxdropError: The hub does not give what is asked for.
        HubUnreachable: Any other failure, such as one of the network.
    """
    from huggingface_hub.errors import (
        GatedRepoError,
        HFValidationError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    try:
        yield
    except FluxdropError:
        raise
    except GatedRepoError as error:
        raise FluxdropError(
            f"The hub gives {repository} only to those who accepted its terms",
            hint="Accept them on its page, then set HF_TOKEN.",
            kind=kind,
        ) from error
    except (RepositoryNotFoundError, HFValidationError) as error:
        raise FluxdropError(
            missing, hint="Check the spelling; a private one needs HF_TOKEN.", kind=kind
        ) from error
    except RevisionNotFoundError as error:
        raise FluxdropError(
            f"The hub's {repository} has no revision {revision}", kind=kind
        ) from error
    # Which exception a network failure raises depends on the HTTP client of the hub's library.
    except Exception as error:
        raise HubUnreachable(type(error).__name__) from error
