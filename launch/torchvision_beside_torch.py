"""torchvision beside a torch that it was not built for."""

import importlib
import sys


def load(module: str):
    """A module of torchvision; its compiled operations may be those of another build.

    Its wheel's CUDA library does not load beside a CPU torch, so what registers its operators must
    not be asked to (ecosystem.md 12).
    """
    import torch.library

    def without_its_operators(register):
        def skip(name, *arguments, **options):
            if isinstance(name, str) and name.startswith("torchvision::"):
                return lambda function: function
            return register(name, *arguments, **options)

        return skip

    whole = torch.library.register_fake, torch.library.register_autograd
    try:
        torch.library.register_fake, torch.library.register_autograd = map(
            without_its_operators, whole)
        importlib.import_module("torchvision")
        return sys.modules[module]
    finally:
        torch.library.register_fake, torch.library.register_autograd = whole
