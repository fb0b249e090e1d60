"""Products by oneDNN: the same numbers, where they gain anything, and in code without Python."""

import re

import pytest
import torch
from programs import needs_compiler

from rlrun.hardware import products
from rlrun.hardware.cpu import has_bfloat16_without_tiles, is_amd_with_avx512
from rlrun.hardware.program import call_once, compile_program, load_code, trace

LARGE = 128  # squared and cubed: as many multiplications as it takes


@pytest.fixture
def amd(monkeypatch):
    """A machine on which oneDNN is faster."""
    if not torch.backends.mkldnn.is_available():
        pytest.skip("torch has no oneDNN here")
    monkeypatch.setattr(products, "type_of_products", lambda: torch.float32)


def matrices(*shapes: tuple[int, ...]) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(shape, generator=generator) for shape in shapes]


SQUARE = (LARGE, LARGE)
PRODUCTS = {
    "rows and columns": (lambda a, b: a @ b, [SQUARE, SQUARE]),
    "transposed weights": (lambda a, b: a @ b.T, [(300, 128), (64, 128)]),
    "transposed rows": (lambda a, b: a.T @ b, [(128, 300), (128, 64)]),
    "a bias": (torch.nn.functional.linear, [SQUARE, SQUARE, (LARGE,)]),
    "several matrices": (torch.bmm, [(2, *SQUARE), (2, *SQUARE)]),
    "as many as there may be": (torch.bmm, [(8, *SQUARE), (8, *SQUARE)]),
}


@pytest.mark.parametrize(("function", "shapes"), PRODUCTS.values(), ids=PRODUCTS)
def test_large_products_are_the_same_by_onednn(amd, function, shapes):
    tensors = matrices(*shapes)
    program = trace(lambda *tensors: [function(*tensors)], tensors)
    assert "rlrun.product" in program.source
    assert "mm.default" not in program.source
    (result,) = call_once(program.forward())(tensors)
    torch.testing.assert_close(result, function(*tensors), rtol=1e-5, atol=1e-4)


OTHERS = {
    "a small one": (torch.mm, matrices((64, 64), (64, 64))),
    "of another type": (torch.mm, [tensor.double() for tensor in matrices(SQUARE, SQUARE)]),
    "a sum of matrices": (torch.addmm, matrices(SQUARE, SQUARE, SQUARE)),
    "no matrices": (torch.bmm, matrices((0, *SQUARE), (0, *SQUARE))),
    "many matrices": (torch.bmm, matrices((9, *SQUARE), (9, *SQUARE))),
    "few columns": (torch.mm, matrices((4096, 512), (512, 2))),
    "few rows": (torch.mm, matrices((4, 1024), (1024, 1024))),
    "a bias for all": (torch.addmm, matrices((1,), SQUARE, SQUARE)),
    "scaled": (lambda a, b, c: torch.addmm(a, b, c, beta=2), matrices((LARGE,), SQUARE, SQUARE)),
}


@pytest.mark.parametrize(("function", "tensors"), OTHERS.values(), ids=OTHERS)
def test_others_are_left_to_mkl(amd, function, tensors):
    program = trace(lambda *tensors: [function(*tensors)], tensors)
    assert "rlrun.product" not in program.source


CHAINS = {
    "two large": (lambda a, b: a @ b @ b, [SQUARE, SQUARE]),
    "two batches": (lambda a, b: torch.bmm(torch.bmm(a, b), b), [(2, *SQUARE), (2, *SQUARE)]),
    "a narrow one and a large one": (lambda a, b: a @ b @ b.T, [(256, 256), (256, 14)]),
    "numbers that are computed once": (
        lambda a, b, c: torch.addmm(c.exp().expand(LARGE), a @ c.exp().expand(LARGE, LARGE), b),
        [SQUARE, SQUARE, (1,)],
    ),
    "transposed twice": (lambda a, b: torch.bmm(a, b).mT.mT.view(-1), [(2, *SQUARE), (2, *SQUARE)]),
    "other axes": (
        lambda a, b: torch.bmm(a, b).transpose(0, 1).transpose(0, 1).view(-1),
        [(2, *SQUARE), (2, *SQUARE)],
    ),
}


@pytest.mark.parametrize(("function", "shapes"), CHAINS.values(), ids=CHAINS)
def test_what_is_done_with_a_product_stays_possible(amd, function, shapes):
    tensors = [tensor / LARGE for tensor in matrices(*shapes)]
    program = trace(lambda *tensors: [function(*tensors)], tensors)
    (result,) = call_once(program.forward())(tensors)
    torch.testing.assert_close(result, function(*tensors), rtol=1e-4, atol=1e-5)


TRANSPOSED = {
    "few columns": (torch.mm, [(256, 256), (256, 14)], "mm"),
    "a gradient of stacked weights": (
        lambda a, b: torch.bmm(a.mT, b).view(2, *SQUARE).mT,
        [(2, *SQUARE), (2, *SQUARE)],
        "product",
    ),
}


@pytest.mark.parametrize(("function", "shapes", "by"), TRANSPOSED.values(), ids=TRANSPOSED)
def test_some_products_are_computed_the_other_way_round(amd, function, shapes, by):
    tensors = matrices(*shapes)
    program = trace(lambda *tensors: [function(*tensors)], tensors)
    factors = re.findall(rf"{by}\.default\((\w+), (\w+)", program.source)
    assert factors
    # Both are of the second matrix first.
    for first, second in factors:
        assert source_of(first, program.source) == "arg1_1"
        assert source_of(second, program.source) == "arg0_1"
    (result,) = call_once(program.forward())(tensors)
    torch.testing.assert_close(result, function(*tensors), rtol=1e-5, atol=1e-4)
    assert result.stride() == function(*tensors).stride()


def source_of(name: str, source: str) -> str:
    """The argument that a value of a traced function is a view of."""
    while not name.startswith("arg"):
        (name,) = re.findall(rf"\b{name} = [\w.]+\((\w+)", source)
    return name


def test_a_batch_that_is_needed_as_it_is_is_not_transposed(amd):
    def both_ways(a, b):
        batch = torch.bmm(a, b)
        return [batch.mT, batch.sum()]

    tensors = matrices((2, *SQUARE), (2, *SQUARE))
    program = trace(both_ways, tensors)
    first, _ = re.findall(r"product\.default\((\w+)", program.source)
    assert source_of(first, program.source) == "arg0_1"


@needs_compiler
def test_compiled_code_calls_onednn_by_itself(amd, tmp_path, monkeypatch):
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))

    def layer(x, weights, bias, others):
        hidden = torch.relu(torch.nn.functional.linear(x, weights, bias))
        return [hidden, hidden.T @ x, torch.bmm(hidden.expand(2, *hidden.shape), others)]

    tensors = matrices(SQUARE, SQUARE, (LARGE,), (2, *SQUARE))
    program = trace(layer, tensors)
    assert program.source.count("rlrun.product") == 4
    path = tmp_path / "layer.code"
    compile_program(program, path)
    code = load_code(path)
    for result, expected in zip(code(tuple(tensors)), layer(*tensors), strict=True):
        torch.testing.assert_close(result, expected, rtol=1e-5, atol=1e-3)
    # The compiler's C++ calls torch's kernel; an operation of ours would go through Python.
    written = [file.read_text() for file in tmp_path.rglob("*.cpp")]
    assert sum(text.count("aoti_torch_cpu__linear_pointwise(") for text in written) >= 4
    assert not any("custom_op_wrapper" in text for text in written)


@pytest.mark.parametrize(
    ("precision", "amd", "bfloat16", "expected"),
    [
        ("highest", True, True, torch.float32),
        ("highest", False, True, None),
        ("high", True, True, torch.float32),
        ("medium", True, True, torch.bfloat16),
        ("medium", False, True, torch.bfloat16),
        ("medium", True, False, None),
    ],
)
def test_which_numbers_are_multiplied(precision, amd, bfloat16, expected, monkeypatch):
    if not (torch.backends.mkl.is_available() and torch.backends.mkldnn.is_available()):
        expected = None
    monkeypatch.setattr(products, "is_amd_with_avx512", lambda: amd)
    monkeypatch.setattr(products, "has_bfloat16_without_tiles", lambda: bfloat16)
    before = torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision(precision)
        assert products.type_of_products() == expected
    finally:
        torch.set_float32_matmul_precision(before)


@pytest.fixture
def rounded(monkeypatch):
    """A machine and settings with which products are of bfloat16 numbers."""
    if not torch.backends.mkldnn.is_available() or not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        pytest.skip("torch has no oneDNN here, or the processor cannot run its bfloat16 products")
    monkeypatch.setattr(products, "type_of_products", lambda: torch.bfloat16)


@pytest.mark.parametrize(("function", "shapes"), PRODUCTS.values(), ids=PRODUCTS)
def test_factors_and_products_are_rounded(rounded, function, shapes):
    tensors = matrices(*shapes)
    program = trace(lambda *tensors: [function(*tensors)], tensors)
    (result,) = call_once(program.forward())(tensors)
    assert result.dtype == torch.float32
    *factors, bias = tensors if len(tensors) == 3 else (*tensors, torch.zeros(()))
    exact = function(*(factor.bfloat16().float() for factor in factors))
    torch.testing.assert_close(result - bias, exact.bfloat16().float(), rtol=1e-2, atol=1e-3)
    assert program.source.count("dtype = torch.bfloat16") == 2 * program.source.count("product.def")


@needs_compiler
def test_rounded_products_are_compiled(rounded, tmp_path, monkeypatch):
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))

    def layer(x, weights, bias):
        return [torch.relu(torch.nn.functional.linear(x, weights, bias))]

    tensors = matrices(SQUARE, SQUARE, (LARGE,))
    program = trace(layer, tensors)
    path = tmp_path / "layer.code"
    compile_program(program, path)
    (result,) = load_code(path)(tuple(tensors))
    torch.testing.assert_close(result, *call_once(program.forward())(tensors), rtol=1e-2, atol=1e-2)
    written = [file.read_text() for file in tmp_path.rglob("*.cpp")]
    assert any("aoti_torch_cpu__linear_pointwise(" in text for text in written)


@pytest.mark.parametrize(
    ("vendor", "flags", "it_is"),
    [
        ("AuthenticAMD", "fpu avx2 avx512f", True),
        ("AuthenticAMD", "fpu avx2", False),
        ("GenuineIntel", "fpu avx2 avx512f", False),
    ],
)
def test_the_maker_of_the_processor(tmp_path, vendor, flags, it_is):
    (tmp_path / "proc").mkdir()
    content = f"processor\t: 0\nvendor_id\t: {vendor}\nflags\t\t: {flags}\n"
    (tmp_path / "proc/cpuinfo").write_text(content)
    assert is_amd_with_avx512(tmp_path) is it_is


@pytest.mark.parametrize(
    ("flags", "it_has"),
    [("fma avx512_bf16", True), ("avx512_bf16 amx_bf16", False), ("fma avx512f", False)],
)
def test_vectors_of_bfloat16_and_no_tiles(tmp_path, flags, it_has):
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/cpuinfo").write_text(f"processor\t: 0\nflags\t\t: {flags}\n")
    assert has_bfloat16_without_tiles(tmp_path) is it_has


def test_a_machine_that_lists_nothing_is_not_amds(tmp_path):
    assert not is_amd_with_avx512(tmp_path)


@pytest.mark.parametrize("shapes", [((8, 64, 128), (256, 128)), ((512, 256), (64, 256))])
def test_a_layer_by_onednn_has_the_same_gradients(amd, monkeypatch, shapes):
    x, weights = (tensor.requires_grad_(True) for tensor in matrices(*shapes))
    calls = []
    multiply = products._multiply
    monkeypatch.setattr(products, "_multiply", lambda *t: calls.append(1) or multiply(*t))

    def gradients(layer):
        result = layer(x, weights)
        loss = (result * torch.linspace(-1, 1, result.shape[-1])).square().sum()
        return [result, *torch.autograd.grad(loss, (x, weights))]

    expected = gradients(torch.nn.functional.linear)
    for result, other in zip(gradients(products.linear), expected, strict=True):
        torch.testing.assert_close(result, other, rtol=1e-4, atol=1e-3)
    assert len(calls) == 3  # forward, and both ways backward
    # What needs no gradient costs nothing.
    products.linear(x.detach(), weights).sum().backward()
    assert len(calls) == 5


def test_a_layer_is_torchs_where_onednn_gains_nothing(amd, monkeypatch):
    monkeypatch.setattr(products, "_multiply", None)
    x, weights = matrices((128, 128), (128, 128))
    for layer in (
        lambda: products.linear(x[:4], weights),  # small
        lambda: products.linear(x.to("meta"), weights.to("meta")),
        lambda: products.linear(x.double(), weights.double()),
    ):
        assert layer().shape[1] == 128
    with torch.autocast("cpu", torch.bfloat16):
        assert products.linear(x, weights).dtype == torch.bfloat16
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    assert torch.equal(products.linear(x, weights), x @ weights.T)
    monkeypatch.undo()
    monkeypatch.setattr(products, "_multiply", None)
    monkeypatch.setattr(products, "type_of_products", lambda: None)
    assert torch.equal(products.linear(x, weights), x @ weights.T)


def test_gradients_by_onednn_have_gradients(amd):
    x, weights = (tensor.requires_grad_(True) for tensor in matrices((128, 128), (128, 128)))

    def second(layer):
        loss = torch.tanh(layer(x, weights)).square().sum()
        first = torch.autograd.grad(loss, (x, weights), create_graph=True)
        return torch.autograd.grad(sum(each.square().sum() for each in first), (x, weights))

    expected = second(torch.nn.functional.linear)
    for result, other in zip(second(products.linear), expected, strict=True):
        torch.testing.assert_close(result, other, rtol=1e-3, atol=1e-2)
