"""The other end of a suspect's path: a network that was given, or a copy of the suspect."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import jax

from mcjax import alignment
from mcjax.alignment.by_name import aligned
from mcjax.core.errors import UserError
from mcjax.core.keys import stream
from mcjax.core.tree import PyTree
from mcjax.data.batches import to_unit
from mcjax.models.network import Network

BATCH_SIZE = 250
"""Images at a time, where channels are ordered by their activations."""


class Second(NamedTuple):
    """The other end.

    Attributes:
        name: What it is, for the report.
        variables: Of the suspect's structure.
    """

    name: str
    variables: PyTree


def second_network(
    key: jax.Array,
    network: Network,
    suspect: PyTree,
    given: PyTree | None,
    examples: Mapping[str, Any],
    *,
    align: str,
    unalign: str,
    fine_tune_fn: Callable[[], PyTree],
) -> Second:
    """The network that a suspect is joined to.

    Args:
        key: Random key.
        network: The network of both.
        suspect: The suspect's variables, "params" and "batch_stats".
        given: A second network's; None takes a copy of the suspect.
        examples: Clean images, "image" [N, H, W, C].
        align: Brings the channels of a given one into another order: see `RepairOptions`.
        unalign: How the suspect's own copy is permuted; "none" fine-tunes one instead.
        fine_tune_fn: Makes a fine-tuned copy, also for a network without channels to permute.

    Returns:
        The network and what it is.
    """
    image = examples["image"]

    def spec() -> alignment.PermutationSpec:
        return alignment.permutation_spec(network.apply, suspect, image.shape[1:])

    def images() -> Iterator[jax.Array]:
        for i in range(0, len(image), BATCH_SIZE):
            yield to_unit(image[i : i + BATCH_SIZE])

    if given is not None:
        mine = stream(key, "alignment")
        return Second("given", aligned(mine, align, spec, network, suspect, given, images))
    if unalign == "none":
        return Second("a fine-tuned copy of the suspect", fine_tune_fn())
    try:
        found = spec()
    except UserError as error:
        return Second(f"a fine-tuned copy of the suspect, because {error}", fine_tune_fn())
    mine = stream(key, "unaligned")
    copy = alignment.unaligned_copy(
        mine, found, network.apply, suspect, by=unalign, images=images()
    )
    return Second("the un-aligned copy of the suspect", copy)
