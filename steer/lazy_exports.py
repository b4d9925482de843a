"""Public names of a package that are loaded when they are first used, so that importing the package alone is quick.

The names stand once, as imports for type checkers in the package's `__init__.py`:

```python
if TYPE_CHECKING:
    from steer.latents.pull import Pull as Pull

__all__, __dir__, __getattr__ = lazy_exports(__name__)
```
"""

import ast
import importlib
import sys
from collections.abc import Callable
from typing import Any


def lazy_exports(package: str) -> tuple[list[str], Callable[[], list[str]], Callable[[str], Any]]:
    """What a package needs to load the names that it imports under `if TYPE_CHECKING` on their first use.

    Args:
        package: its name; it must be the one that is being imported.

    Returns:
        `__all__`, `__dir__` and `__getattr__` of the package.
    """
    module = sys.modules[package]
    source = module.__loader__.get_source(package)  # type: ignore[union-attr]  # all loaders of modules in Python have it
    blocks = [node for node in ast.parse(source).body if isinstance(node, ast.If)]
    imports = [node for block in blocks for node in block.body if isinstance(node, ast.ImportFrom)]
    homes = {alias.name: str(node.module) for node in imports for alias in node.names}

    def load(name: str) -> Any:
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        value = getattr(importlib.import_module(homes[name]), name)
        setattr(module, name, value)
        return value

    return sorted(homes), lambda: sorted(homes), load
