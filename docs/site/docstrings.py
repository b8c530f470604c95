"""Two habits of mcjax's docstrings in the words that griffe, which reads them, knows."""

import re

import griffe


class Docstrings(griffe.Extension):
    """`Example:` is its `Examples:`; fields of NamedTuples and Flax modules are its `Attributes:`."""

    def on_instance(self, *, obj: griffe.Object, **kwargs) -> None:
        """Changes the docstring of a class or function before it is parsed."""
        if not obj.docstring:
            return
        text = re.sub(r"^Example:$", "Examples:", obj.docstring.value, flags=re.MULTILINE)
        if obj.is_class and not any("dataclass" in str(d.value) for d in obj.decorators):
            text = re.sub(r"^Args:$", "Attributes:", text, flags=re.MULTILINE)
        obj.docstring.value = text
