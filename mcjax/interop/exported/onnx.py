"""Writes an exported program as ONNX, with PyTorch's own exporter."""

import contextlib
import io
import logging
import warnings
from pathlib import Path
from typing import Any

from mcjax.core.errors import UserError
from mcjax.core.extras import need
from mcjax.core.files import cannot_write


def check_packages() -> None:
    """Imports what `write_onnx` needs.

    Raises:
        UserError: A package is not installed.
    """
    for package in ("torch", "onnxscript", "onnx"):
        need(package, "onnx", "writing ONNX")


def write_onnx(path: Path, program: Path) -> None:
    """Writes a program as ONNX. Its input is that of the program, [B, C, H, W].

    Args:
        path: A new .onnx file.
        program: A .pt2 file that mcjax wrote: it holds neither pickles nor code.

    Raises:
        UserError: A package is not installed, or PyTorch can't export the program.
    """
    check_packages()
    import torch

    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        logging.disable(logging.WARNING)  # about torchvision's operators, which are not used
        try:
            made: Any = torch.onnx.export(torch.export.load(program), dynamo=True, verbose=False)
            made.save(path)
        except OSError as error:
            raise cannot_write(path, error) from None
        except Exception as error:  # the exporter has many kinds
            reason = " ".join(str(error).split())[:200]
            raise UserError(
                f"{program}: PyTorch can't write it as ONNX ({type(error).__name__}: {reason}); use the "
                ".pt2 file"
            ) from None
        finally:
            logging.disable(logging.NOTSET)
