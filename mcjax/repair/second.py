"""The other end of a suspect's path: a network that was given, the suspect taught, its copy, or a free one."""

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

TAUGHT = "the suspect, taught"
"""The name of that end."""

ENDS = ("taught", "free", "unaligned", "fine_tuned")
"""What the path of one suspect leads to."""

BATCH_SIZE = 250
"""Images at a time, where channels are ordered by their activations."""


class Second(NamedTuple):
    """The other end.

    Attributes:
        name: What it is, for the report.
        variables: Of the suspect's structure; of a free end, where it begins.
        is_free: Whether it is trained with the path.
        is_suspect: Whether it may be tampered with as well.
    """

    name: str
    variables: PyTree
    is_free: bool = False
    is_suspect: bool = True


def second_network(
    key: jax.Array,
    network: Network,
    suspect: PyTree,
    given: PyTree | None,
    examples: Mapping[str, Any],
    *,
    align: str,
    end: str,
    unalign: str,
    teach_fn: Callable[[], PyTree],
    fine_tune_fn: Callable[[], PyTree],
) -> Second:
    """The network that a suspect is joined to.

    Args:
        key: Random key.
        network: The network of both.
        suspect: The suspect's variables, "params" and "batch_stats".
        given: A second network's; None takes what `end` says.
        examples: Clean images, "image" [N, H, W, C].
        align: Brings the channels of a given one into another order: see `RepairOptions`.
        end: One of `ENDS`.
        unalign: How the suspect's own copy is permuted.
        teach_fn: Makes the suspect's taught fine-tuning.
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
    if end == "taught":
        return Second(TAUGHT, teach_fn(), is_suspect=False)
    if end == "free":
        return Second("free, trained with the path", suspect, is_free=True, is_suspect=False)
    if end == "fine_tuned":
        return Second("a fine-tuned copy of the suspect", fine_tune_fn())
    try:
        found = spec()
    except UserError as error:
        return Second(f"a fine-tuned copy of the suspect, because {error}", fine_tune_fn())
    mine = stream(key, "unaligned")
    permuted = alignment.unaligned_copy(
        mine, found, network.apply, suspect, by=unalign, images=images()
    )
    return Second("the un-aligned copy of the suspect", permuted)
