"""The architecture, held by the source: imports point one way, families and `nano` stay home.

Everything is read from the syntax tree, lazy imports and those for type checking included, so
nothing is imported and nothing is missed.
"""

import ast
import importlib
import inspect
import pkgutil
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

SOURCE = Path(__file__).parent.parent / "src" / "tastemaker"

# From the bottom up: a folder, or a module of the root, imports from itself and those before it.
ORDER = (
    "core",
    "losses",
    "config",
    "storage",
    "datasets",
    "backbones",
    "scorers",
    "metrics",
    "nano",
    "preflight",
    "pairing",
    "sampling",
    "training",
    "evaluation",
    "studio",
    "reporting",
    "doctor",
    "profiling",
    "recipes",
    "__init__",
    "cli",
    "__main__",
)

# Names that tell one family of models from another.
FAMILY = re.compile(
    r"StableDiffusion\w*|SDXL\w*|SD3\w*|SD15\w*|Flux\w*|FLUX\w*|PixArt\w*|UNet2D\w*|AutoencoderKL\w*"
    r"|CLIPTextModel\w*|T5Encoder\w*"
)
FAMILIES_LIVE_IN = {"backbones", "nano"}  # `nano` builds a model of one family from its classes


def test_test_files_have_names_of_their_own() -> None:
    """pytest imports them by their bare names: of two alike, one is not collected."""
    names = [path.name for path in Path(__file__).parent.rglob("test_*.py")]
    assert sorted(names) == sorted(set(names))


def modules() -> dict[str, Path]:
    """Every module's dotted name below the package, with its file."""
    found = {}
    for path in sorted(SOURCE.rglob("*.py")):
        parts = path.relative_to(SOURCE).with_suffix("").parts
        found[".".join(parts)] = path
    return found


def part(module: str) -> str:
    """The top-level module or folder."""
    return module.split(".")[0]


def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def imports(path: Path) -> Iterator[tuple[str, int]]:
    """Every imported module with its line; `from a import b` counts as both a and a.b."""
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: write the import from `tastemaker` on"
            for alias in node.names:
                yield f"{node.module}.{alias.name}", node.lineno


def own_imports(path: Path) -> Iterator[tuple[str, int]]:
    """The parts of this package that a file imports."""
    for name, line in imports(path):
        root, *rest = name.split(".")
        if root == "tastemaker":
            inside = rest and ((SOURCE / rest[0]).is_dir() or (SOURCE / f"{rest[0]}.py").is_file())
            yield (rest[0] if inside else "__init__"), line


def words(path: Path) -> Iterator[tuple[str, int]]:
    """Every identifier and every string that is no docstring, with its line."""
    root = tree(path)
    docstrings = {
        id(node.value)
        for node in ast.walk(root)
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    }
    for node in ast.walk(root):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            if id(node) not in docstrings:
                yield node.value, node.lineno
        elif isinstance(node, ast.Name):
            yield node.id, node.lineno
        elif isinstance(node, ast.Attribute):
            yield node.attr, node.lineno
        elif isinstance(node, ast.alias | ast.FunctionDef | ast.ClassDef | ast.AsyncFunctionDef):
            yield node.name, node.lineno


def test_every_folder_has_its_place() -> None:
    assert {part(name) for name in modules()} == set(ORDER)


def test_imports_point_one_way() -> None:
    wrong = []
    for module, path in modules().items():
        here = part(module)
        for there, line in own_imports(path):
            if ORDER.index(there) > ORDER.index(here):
                wrong.append(f"{path.relative_to(SOURCE)}:{line}: {here} imports {there}")
    assert not wrong, "\n".join(wrong)


PURE = [name for name in modules() if name.startswith("losses.")] + [
    "training.preference.credit",
    "training.preference.step_arrays",
]


@pytest.mark.parametrize("module", PURE)
def test_pure_functions_import_torch_and_the_registry_alone(module: str) -> None:
    path = modules()[module]
    allowed = {"__future__", "collections", "dataclasses", "math", "pydantic", "torch", "typing"}
    for name, line in imports(path):
        known = name.split(".")[0] in allowed or name.startswith(
            (
                "tastemaker.core.lazy_torch.",
                "tastemaker.core.registry.",
                "tastemaker.core.noise_schedule.",
                "tastemaker.losses.",
                "tastemaker.training.preference.step_arrays.",
            )
        )
        assert known, f"{path}:{line}: {name}"


def test_nano_is_named_at_home_and_in_recipes_alone() -> None:
    wrong = []
    for module, path in modules().items():
        if part(module) in {"nano", "recipes"}:
            continue
        for word, line in words(path):
            table = module == "core.registry" and word == "tastemaker.nano.entries"
            if re.search(r"\bnano", word) and not table:
                wrong.append(f"{path.relative_to(SOURCE)}:{line}: {word!r}")
    assert not wrong, "`nano` has no special case elsewhere:\n" + "\n".join(wrong)


def test_model_families_are_named_in_backbones_alone() -> None:
    wrong = []
    for module, path in modules().items():
        if part(module) in FAMILIES_LIVE_IN:
            continue
        for word, line in words(path):
            if FAMILY.search(word):
                wrong.append(f"{path.relative_to(SOURCE)}:{line}: {word!r}")
    assert not wrong, "\n".join(wrong)


def test_nothing_is_pickled() -> None:
    """Neither pickle itself nor the calls that read or write it.

    The builder of `nano` keeps optimizer states that way, in files that nothing else ever reads.
    Weights that others published as a .pt file are read in one place, by torch's reader that makes
    tensors and runs no code.
    """
    wrong = []
    for module, path in modules().items():
        if module.startswith("nano.build."):
            continue
        wrong += [
            f"{path.relative_to(SOURCE)}:{line}: imports {name}"
            for name, line in imports(path)
            if name.split(".")[0] in {"pickle", "dill", "shelve", "joblib", "cloudpickle"}
        ]
        root = tree(path)
        safe = {
            call.func
            for call in ast.walk(root)
            if module == "scorers.checkpoints"
            and isinstance(call, ast.Call)
            and any(
                each.arg == "weights_only" and ast.unparse(each.value) == "True"
                for each in call.keywords
            )
        }
        for node in ast.walk(root):
            if (
                isinstance(node, ast.Attribute)
                and isinstance(node.value, ast.Name)
                and (node.value.id, node.attr) in {("torch", "load"), ("torch", "save")}
                and node not in safe
            ):
                wrong.append(f"{path.relative_to(SOURCE)}:{node.lineno}: torch.{node.attr}")
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("arguments", [["--help"], ["train", "--help"]], ids=" ".join)
def test_help_imports_nothing_heavy(arguments: list[str]) -> None:
    result = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "tastemaker", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert result.returncode == 0, result.stderr[-2000:]
    assert "usage: tastemaker" in result.stdout
    imported = {line.split("|")[-1].strip() for line in result.stderr.splitlines() if "|" in line}
    assert "tastemaker.cli.command_line" in imported
    heavy = {"torch", "diffusers", "transformers", "peft", "accelerate", "matplotlib", "pyarrow"}
    assert not imported & heavy


def test_data_needs_no_torch() -> None:
    """Pairs, exports, checks and contact sheets start at once, and run where torch is broken."""
    modules = (
        "pairing.pair",
        "pairing.join",
        "datasets.exporting",
        "datasets.validation",
        "datasets.formats",
        "reporting.pool.show",
        "reporting.votes.votes",
        "reporting.votes.results",
        "evaluation.human_columns",
        "nano.entries",
        "storage.vote_files",
        "studio.run",
        "studio.sources",
        "studio.study",
    )
    names = ", ".join(f"tastemaker.{name}" for name in modules)
    code = f"import sys; sys.modules['torch'] = None; import {names}"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr[-2000:]


LAZY = [
    "tastemaker" if path.parent == SOURCE else f"tastemaker.{'.'.join(name.split('.')[:-1])}"
    for name, path in modules().items()
    if path.name == "__init__.py" and "lazy_exports(__name__)" in path.read_text(encoding="utf-8")
]


@pytest.mark.parametrize("package", LAZY)
def test_public_names_are_imported_when_first_used(package: str) -> None:
    module = importlib.import_module(package)
    inside = {each.name for each in pkgutil.iter_modules(module.__path__)}
    for name in module.__all__:
        value = getattr(module, name)
        hidden = name in inside and not inspect.ismodule(value)
        assert not hidden, f"{package}.{name} would be hidden by the module of that name"
    with pytest.raises(AttributeError, match="no attribute 'trian'"):
        module.trian  # noqa: B018


MOST_LINES = {"file": 320, "function": 60}
"""A file has one subject, and a function with its docstring fits a screen."""


def test_files_and_functions_stay_short() -> None:
    long = []
    for path in modules().values():
        text = path.read_text(encoding="utf-8")
        if text.count("\n") > MOST_LINES["file"]:
            long.append(str(path))
        for node in ast.walk(ast.parse(text)):
            if not isinstance(node, ast.FunctionDef) or node.end_lineno is None:
                continue
            if node.end_lineno - node.lineno >= MOST_LINES["function"]:
                long.append(f"{path}:{node.lineno}: {node.name}")
    assert not long, "\n".join(long)
