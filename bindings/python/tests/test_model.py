import dataclasses
import io
import os
import pickle
from array import array
from pathlib import Path

import pytest

import esolm


def test_library(path: str) -> None:
    assert esolm.version() == esolm.__version__
    assert esolm.system_info().startswith(f"esolm {esolm.version()}")
    cpu = next(device for device in esolm.devices() if device.name == "cpu")
    assert cpu.kind == esolm.DeviceKind.CPU
    assert cpu.description
    assert 0 < cpu.memory_free <= cpu.memory_total


def test_info(model: esolm.Model, path: str) -> None:
    info = model.info
    assert info.file_bytes == os.path.getsize(path)
    assert info.context_length > 0 and info.parameters > 0 and info.tensor_bytes > 0 and info.load_time > 0
    assert info.mask_token < info.vocab_size
    assert info.eos_token is not None and info.eos_token < info.vocab_size
    assert info.device == "cpu"
    assert info.bos_token == info.eos_token and info.prepended_token is None
    assert model.token_is_end(info.eos_token) and model.token_is_special(info.eos_token)
    assert model.token_is_special(info.mask_token) and not model.token_is_end(info.mask_token)
    assert not model.token_is_special(model.tokenize("a")[0])
    assert model.metadata["general.architecture"] == "esolm"
    assert model.metadata["esolm.context_length"] == str(info.context_length)
    assert model.supports(esolm.Feature.DIFFUSION)
    assert not model.supports(esolm.Feature(999))


def test_tokens(model: esolm.Model) -> None:
    text = "Once upon a time, in Zürich \N{SNOWMAN}."
    tokens = model.tokenize(text)
    assert model.detokenize(tokens) == text
    assert b"".join(model.token_bytes(token) for token in tokens) == text.encode()
    assert model.tokenize("") == []
    assert model.detokenize([]) == ""
    mask = model.info.mask_token
    assert model.tokenize("[MASK]", parse_special=True) == [mask]
    assert mask not in model.tokenize("[MASK]")
    assert model.tokenize("a\0b") != model.tokenize("a")
    assert model.tokenize(" king", continues=True) == model.tokenize(" king")
    long = "once " * 5000
    assert model.detokenize(model.tokenize(long)) == long


def test_templates(model: esolm.Model) -> None:
    prompt, length = model.template("The king{{mask 8}} was happy.")
    assert length == len(prompt.tokens) + 8
    assert prompt.positions is not None and prompt.positions[-1] == length - 1
    with pytest.raises(esolm.InvalidArgumentError, match="mask"):
        model.template("The {{mask no}}")


def test_ranges(model: esolm.Model) -> None:
    for wrong in (-1, 1 << 32):
        with pytest.raises(esolm.InvalidArgumentError):
            model.detokenize([wrong])
        with pytest.raises(esolm.InvalidArgumentError):
            model.token_bytes(wrong)
    with pytest.raises(esolm.TokenizerError):
        model.token_bytes(model.info.vocab_size)
    # Numbers one by one, not four bytes as one of C's.
    for tokens in (bytes([1, 0, 2, 0]), array("Q", [1, 0, 2, 0]), memoryview(b"\1\0\2\0")):
        assert model.detokenize(tokens) == model.detokenize([1, 0, 2, 0])


def test_ways_to_open(path: str, tmp_path: Path) -> None:
    file = Path(path).read_bytes()
    for options in (None, esolm.ModelOptions(copy=True), esolm.ModelOptions(repack=True, mlock=True, prefetch=True)):
        with esolm.Model.open(Path(path), options) as model:
            expected = model.info.parameters
    with esolm.Model.open_bytes(bytearray(file)) as model:
        assert model.info.parameters == expected
    stream = io.BytesIO(file)

    def read(offset: int, size: int) -> bytes:
        stream.seek(offset)
        return stream.read(min(size, 1 << 20))  # fewer bytes than asked for are asked for again

    with esolm.Model.open_reader(read, len(file), name="memory") as model:
        assert model.info.parameters == expected
    with pytest.raises(esolm.FileError, match="memory: it ends"):
        esolm.Model.open_reader(read, len(file) + 1, name="memory")
    packed = tmp_path / "packed"
    packed.write_bytes(bytes(32) + file + bytes(7))
    with packed.open("rb") as opened:
        with esolm.Model.open_file(opened, 32, len(file)) as model:
            assert model.info.parameters == expected
        with pytest.raises(esolm.InvalidArgumentError):
            esolm.Model.open_file(opened.fileno(), 32, len(file) * 2)


def test_locked_and_prefetched(path: str) -> None:
    heard: list[str] = []
    esolm.set_log(lambda level, message: heard.append(message))

    def calls(options: esolm.ModelOptions) -> int:
        fractions: list[float] = []
        heard.clear()
        with esolm.Model.open(path, dataclasses.replace(options, progress=fractions.append)):
            return len(fractions)

    try:
        plain = calls(esolm.ModelOptions())
        assert not any("locked" in line for line in heard)
        calls(esolm.ModelOptions(mlock=True))
        assert any("locked" in line for line in heard)  # or that it could not be
        assert calls(esolm.ModelOptions(prefetch=True)) > plain
    finally:
        esolm.set_log(None)


def test_plain_rows_are_repacked(source: Path) -> None:
    # This file's matrices lie in plain rows.
    def written(options: esolm.ModelOptions) -> list[int]:
        with esolm.Model.open(source / "fuzz/seeds/gguf/q8_0", options) as model:
            with esolm.Context(model, esolm.ContextOptions(length=12, threads=1)) as context:
                context.generate([esolm.Prompt()], esolm.GenerateParams(seed=7, ignore_eos=True))
                return context.tokens()

    expected = written(esolm.ModelOptions())
    assert len(expected) == 12
    assert written(esolm.ModelOptions(repack=True)) == written(esolm.ModelOptions(copy=True)) == expected


# A Qwen2 whose file does not say its mask token is WeDLM once that is given.
def test_mask_token(source: Path) -> None:
    file = (source / "fuzz/seeds/gguf/llama-qwen2").read_bytes()
    masked = esolm.ModelOptions(mask_token=3)
    with pytest.raises(esolm.InvalidArgumentError, match="autoregressive"):
        esolm.Model.open_bytes(file, masked)
    file = file.replace(b"esolm.variant", b"other.variant")
    for options in (None, masked):
        with esolm.Model.open_bytes(file, options) as model:
            assert (model.info.mask_token == 3) == model.supports(esolm.Feature.DIFFUSION) == (options is masked)
    with pytest.raises(esolm.InvalidArgumentError):
        esolm.Model.open_bytes(file, esolm.ModelOptions(mask_token=-1))


def test_errors(path: str, tmp_path: Path) -> None:
    with pytest.raises(esolm.FileError, match=r"missing\.gguf") as caught:
        esolm.Model.open(tmp_path / "missing.gguf")
    assert caught.value.status == esolm.Status.IO
    assert caught.value.status.text
    again = pickle.loads(pickle.dumps(caught.value))  # between processes
    assert (type(again), str(again)) == (esolm.FileError, str(caught.value))
    with pytest.raises(esolm.BadFileError):
        esolm.Model.open_bytes(b"no model")
    with pytest.raises(esolm.BadFileError):
        esolm.Model.open_bytes(b"")
    with pytest.raises(esolm.DeviceError):
        esolm.Model.open(path, esolm.ModelOptions(device="cuda:77"))
    with pytest.raises(esolm.InvalidArgumentError):
        esolm.Model.open(path, esolm.ModelOptions(device="c\0pu"))
    with pytest.raises(ValueError, match="NUL"):
        esolm.Model.open("a\0b")
    assert esolm.Status(999).name == "OTHER_999"


def test_closing(path: str, prompt: esolm.Prompt) -> None:
    model = esolm.Model.open(path)
    context = esolm.Context(model, esolm.ContextOptions(length=16))
    model.close()
    model.close()
    with pytest.raises(esolm.ClosedError):
        model.tokenize("Once")
    with pytest.raises(esolm.ClosedError):
        esolm.Context(model)
    context.generate([prompt])
    assert context.text()
    context.close()
    for call in (context.text, context.step, context.cancel, context.save):
        with pytest.raises(esolm.ClosedError):
            call()


def test_memory(model: esolm.Model, path: str) -> None:
    options = esolm.ContextOptions(length=64, sequences=2)
    use = esolm.memory_use(model, options)
    assert use.weights > 0 and use.kv_cache > 0 and use.compute > 0
    assert use.arena >= use.kv_cache + use.compute
    assert esolm.estimate_memory(path, context=options) == use
    larger = esolm.memory_use(model, esolm.ContextOptions(length=64, sequences=2, kv_type=esolm.KVType.F32))
    assert larger.kv_cache == 2 * use.kv_cache
    smaller = esolm.memory_use(model, esolm.ContextOptions(length=64, sequences=2, kv_type=esolm.KVType.Q8_0))
    assert smaller.kv_cache * 64 == use.kv_cache * 34
    fewer = esolm.memory_use(model, esolm.ContextOptions(length=64, sequences=2, batch_rows=16))
    assert fewer.compute < use.compute
    # ggml does not say how its time is spent.
    with esolm.Context(model, esolm.ContextOptions(length=16, ggml=True)) as context:
        with pytest.raises(esolm.UnsupportedError):
            context.profile()
    with pytest.raises(esolm.InvalidArgumentError):
        esolm.memory_use(model, esolm.ContextOptions(length=1 << 40))
    with pytest.raises(esolm.InvalidArgumentError):
        esolm.Context(model, esolm.ContextOptions(length=-1))
    assert esolm.MemoryUse(1, 2, 3, 4).arena == 2
