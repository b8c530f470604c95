"""The taught line: straight from the suspect to its taught fine-tuning; t is the repair's strength."""

from mcjax.repair.methods import line
from mcjax.repair.methods.method import Method

METHOD = Method(run=line.run, kind="path", uses_images=False, end="taught_fine_tune")
