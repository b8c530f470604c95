"""Networks and curves of PyTorch in mcjax, and back; `python -m mcjax.interop.torch` is `mcjax torch`."""

from mcjax.interop.draft import Draft, draft
from mcjax.interop.files import StateDict, read_state_dict, write_state_dict
from mcjax.interop.form import Form
from mcjax.interop.load import (
    Loaded,
    LoadedCurve,
    export_network,
    load_curve,
    load_network,
    save_curve,
    save_network,
)
from mcjax.interop.parity import Parity, parity
from mcjax.interop.rows import CONV, DENSE, SAME, Row, Transform, flat, to_tensors, to_variables

__all__ = [
    "CONV",
    "DENSE",
    "SAME",
    "Draft",
    "Form",
    "Loaded",
    "LoadedCurve",
    "Parity",
    "Row",
    "StateDict",
    "Transform",
    "draft",
    "export_network",
    "flat",
    "load_curve",
    "load_network",
    "parity",
    "read_state_dict",
    "save_curve",
    "save_network",
    "to_tensors",
    "to_variables",
    "write_state_dict",
]

if __name__ == "__main__":
    from mcjax.cli import command, torch

    with command.session(torch.define_flags, torch.__doc__ or "", takes_words=True) as words:
        torch.main(*words)
