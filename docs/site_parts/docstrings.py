"""How autodoc shows what the house's docstrings and signatures hold."""

from typing import Any

from sphinx.application import Sphinx


def setup(app: Sphinx) -> dict[str, Any]:
    """Connect the hooks."""
    app.connect("autodoc-process-signature", _signature)
    return {"parallel_read_safe": True}


def _signature(
    app: Sphinx, what: str, name: str, obj: Any, options: Any, signature: str | None, returns: str | None
) -> tuple[str | None, str | None] | None:
    """Leave out the signature of LELPConfig: more than a hundred fields, nearly all of TrainingArguments."""
    return ("(…)", None) if name == "hf_lelp.config.LELPConfig" else None
