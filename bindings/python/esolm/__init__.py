"""esolm runs Esoteric Language Models, which write many tokens per step.

    import esolm

    with esolm.Model.open("model.gguf") as model, esolm.Context(model) as context:
        prompt = esolm.Prompt(model.tokenize("Once upon a time"))
        for step in context.steps([prompt], esolm.GenerateParams(seed=1)):
            print(f"step {step.index + 1} of {step.total} wrote {len(step.updates)} tokens")
        print(context.text())

Any number of threads may use a ``Model`` at once. On a ``Context`` one call at a time computes; another one that overlaps with
it raises ``BusyError``. Calls give up the interpreter's lock while they run. After ``os.fork`` contexts of the parent with
several threads raise ``UnsupportedError`` in the child: with multiprocessing, use its "spawn" or make contexts in the child.

esolm.h is the reference. These functions of it have no counterpart:

- esolm_generate: ``Context.generate`` and ``Context.steps`` call esolm_step for each step.
- esolm_context_new_in and esolm_context_arena_size: a context allocates its own memory.
- esolm_model_retain: a ``Model`` can be shared.
- esolm_tokenize and esolm_tokenize_template: ``Model.tokenize`` and ``Model.template`` call the functions with parameters.
- esolm_abi_version: it is compared when the library is loaded.
"""

from .asynchronous import AsyncSteps
from .callbacks import LogitsCallback, LogitsRow, Progress, Read
from .chat import ChatOptions, Message
from .context import Context, Profile
from .errors import (
    BadFileError,
    BufferTooSmallError,
    BusyError,
    CancelledError,
    ClosedError,
    DeviceError,
    EsolmError,
    FileError,
    InternalError,
    InvalidArgumentError,
    NotFiniteError,
    OutOfMemoryError,
    Status,
    TokenizerError,
    UnsupportedError,
)
from .limits import ContextOptions, KVType, MemoryUse, estimate_memory, memory_use
from .model import Feature, Model, ModelInfo, ModelOptions
from .pool import Pool, PoolOptions
from .request import (
    ALPHA_0_AUTO,
    AUTO,
    LOOKAHEAD_AUTO,
    TOP_K_AUTO,
    WINDOW_AUTO,
    Confidence,
    Constraints,
    Dry,
    GenerateParams,
    Order,
    Prompt,
)
from .score import ScoreParams, TextScore
from .steps import Step, StepText, StopReason, TokenLogProb, Update
from .system import Device, DeviceKind, Level, devices, set_log, set_log_level, system_info, version

__version__ = "0.1.0"

__all__ = [
    "ALPHA_0_AUTO",
    "AUTO",
    "LOOKAHEAD_AUTO",
    "TOP_K_AUTO",
    "WINDOW_AUTO",
    "AsyncSteps",
    "BadFileError",
    "BufferTooSmallError",
    "BusyError",
    "CancelledError",
    "ChatOptions",
    "ClosedError",
    "Confidence",
    "Constraints",
    "Context",
    "ContextOptions",
    "Device",
    "DeviceError",
    "DeviceKind",
    "Dry",
    "EsolmError",
    "Feature",
    "FileError",
    "GenerateParams",
    "InternalError",
    "InvalidArgumentError",
    "KVType",
    "Level",
    "LogitsCallback",
    "LogitsRow",
    "MemoryUse",
    "Message",
    "Model",
    "ModelInfo",
    "ModelOptions",
    "NotFiniteError",
    "Order",
    "OutOfMemoryError",
    "Pool",
    "PoolOptions",
    "Profile",
    "Progress",
    "Prompt",
    "Read",
    "ScoreParams",
    "Status",
    "Step",
    "StepText",
    "StopReason",
    "TextScore",
    "TokenLogProb",
    "TokenizerError",
    "UnsupportedError",
    "Update",
    "devices",
    "estimate_memory",
    "memory_use",
    "set_log",
    "set_log_level",
    "system_info",
    "version",
]
