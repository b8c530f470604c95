"""Recognises programs whose logits are piecewise linear in the images."""

from mcjax.interop.exported.graph import Graph, Node, Ref

_LINEAR = """
    _adaptive_avg_pool2d _native_batch_norm_legit_no_training abs adaptive_avg_pool2d
    adaptive_max_pool2d add addmm alias amax amin avg_pool2d batch_norm bmm cat channel_shuffle chunk
    clamp clamp_max clamp_min clone constant_pad_nd contiguous conv1d conv2d conv_transpose2d
    convolution detach div dropout expand flatten flip hardsigmoid hardtanh im2col index
    index_select leaky_relu linear matmul max_pool2d max_pool2d_with_indices maximum mean minimum mm
    mul neg pad permute pixel_shuffle pixel_unshuffle reflection_pad2d relu relu6 repeat
    replication_pad2d reshape roll rsub select slice split split_with_sizes squeeze stack sub sum t
    to transpose type_as unbind unflatten unsqueeze upsample_bicubic2d upsample_bilinear2d
    upsample_nearest2d view
"""
_SUMS = ("add", "sub", "rsub", "maximum", "minimum", "cat", "stack")
"""Operators that stay linear if several arguments depend on the images."""


def is_piecewise_linear(graph: Graph) -> bool:
    """Whether only piecewise linear operators lie between the images and the logits.

    Args:
        graph: The program.

    Returns:
        False also where it is not known.
    """
    dependent = {graph.images}
    for node in graph.nodes:
        used = [ref for ref in node.refs if ref in dependent]
        if not used:
            continue
        if not _is_linear(node, used):
            return False
        for result in node.results:
            dependent.update(result if isinstance(result, tuple) else [result])
    return True


def _is_linear(node: Node, used: list[str]) -> bool:
    name = node.operator.removeprefix("aten.").rstrip("_")
    if name not in _LINEAR.split() or (len(used) > 1 and name not in _SUMS):
        return False
    # A divisor that depends on the images; a normalisation by the batch's own statistics.
    if name == "batch_norm":
        return dict(node.arguments).get("running_mean") is not None
    return name != "div" or node.arguments[0][1] == Ref(used[0])
