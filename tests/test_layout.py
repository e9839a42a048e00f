"""The package's shape: imports point one way, importing changes nothing, everything public is documented."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest

import scratio

SOURCE = Path(scratio.__file__).parent
FILES = sorted(SOURCE.rglob("*.py"))

MAY_IMPORT = {
    "paths": set(),
    "module": {"paths"},
    "estimators": {"module", "paths", "helpers"},
    "stats": {"helpers"},
    "train": {"module", "estimators", "paths", "helpers"},
    "conditions": {"module", "helpers"},
    "scoring": {"conditions", "train", "stats", "module", "estimators", "paths", "helpers"},
    "model": {"scoring", "conditions", "train", "stats", "module", "estimators", "paths", "helpers"},
    "fdrl": {"model", "conditions", "train", "stats", "module", "estimators", "paths", "helpers"},
    "datasets": {"helpers"},
    "io": {"helpers"},
    "peers": {"stats", "module", "estimators", "paths", "helpers"},
    "tl": {"model", "scoring", "conditions", "stats", "datasets", "peers", "helpers"},
    "get": {"helpers"},
    "pl": {"get", "model", "helpers"},
    "cli": {"model", "tl", "pl", "io", "datasets", "helpers"},
    "helpers": {"helpers"},
    "": {"get", "model", "tl", "pl", "io", "datasets", "peers", "helpers", "cli"},
}
"""What each part may import of scratio, beside itself. "helpers" are the modules _*.py at the top, "" is __init__."""

OFFERS = {"model/__init__.py": {"fdrl"}}
"""What a file offers under a name of its own, of a part above it. It may import that only when it is first used."""

FORBIDDEN = {
    part: {"anndata", "scvi", "lightning", "scanpy", "pandas", "matplotlib"}
    for part in ("paths", "module", "estimators")
}
FORBIDDEN |= {
    "stats": {"anndata", "scvi", "lightning", "scanpy", "torch", "matplotlib"},
    "train": {"anndata", "scvi", "scanpy", "matplotlib"},
    "conditions": {"scanpy", "scvi", "lightning", "matplotlib", "seaborn"},
    "scoring": {"scanpy", "scvi", "lightning", "matplotlib", "seaborn"},
    "model": {"scanpy", "matplotlib", "seaborn"},
    "fdrl": {"scanpy", "matplotlib", "seaborn"},
    "tl": {"torch", "lightning", "scvi", "matplotlib", "seaborn"},
    "get": {"torch", "lightning", "scvi", "scanpy", "matplotlib", "seaborn"},
    "pl": {"torch", "lightning", "scvi", "sklearn", "scipy"},
    "datasets": {"torch", "lightning", "scvi", "matplotlib"},
    "io": {"torch", "lightning", "scvi", "scanpy", "matplotlib"},
}
"""What each part may not import of other packages."""


def part_of(module: str) -> str:
    """Part of a module named by its full name: ``scratio.tl._write`` is of ``tl``."""
    names = module.split(".")[1:]
    if not names:
        return ""
    return "helpers" if names[0].startswith("_") else names[0]


def imports(file: Path) -> set[str]:
    """Full names of everything a file imports, also inside of functions and for type checkers."""
    package = ["scratio", *file.relative_to(SOURCE).parent.parts]
    found = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(package[: len(package) - node.level + 1]) if node.level else ""
            module = ".".join(name for name in (base, node.module) if name)
            # "from scratio import tl" imports scratio.tl, "from scratio.paths import GaussianPath" scratio.paths.
            found |= {f"scratio.{alias.name}" for alias in node.names} if module == "scratio" else {module}
    return found


def name_of(file: Path) -> str:
    return str(file.relative_to(SOURCE))


@pytest.mark.parametrize("file", FILES, ids=name_of)
def test_imports_point_one_way(file):
    own = part_of(".".join(["scratio", *file.relative_to(SOURCE).with_suffix("").parts]).removesuffix(".__init__"))
    own = "" if file == SOURCE / "__init__.py" else own
    assert own in MAY_IMPORT, f"{own!r} is a new part: say in MAY_IMPORT what it may import"
    used = {part_of(module) for module in imports(file) if module.split(".")[0] == "scratio"}
    if own != "":
        used.discard("")  # names of __init__ would be a circle; the next line finds them
        assert not any(module == "scratio" for module in imports(file))
    assert used - {own} <= MAY_IMPORT[own] | OFFERS.get(file.relative_to(SOURCE).as_posix(), set())


@pytest.mark.parametrize("file", FILES, ids=name_of)
def test_numerical_parts_know_nothing_of_annotated_data(file):
    part = file.relative_to(SOURCE).parts[0]
    packages = {module.split(".")[0] for module in imports(file)}
    assert not packages & FORBIDDEN.get(part, set())


def test_the_rules_are_about_files_that_exist():
    parts = {part_of(".".join(["scratio", *file.relative_to(SOURCE).with_suffix("").parts])) for file in FILES}
    assert {
        "paths",
        "module",
        "estimators",
        "stats",
        "train",
        "conditions",
        "scoring",
        "model",
        "fdrl",
        "tl",
        "get",
        "pl",
        "datasets",
    } <= parts
    assert "scratio.module" in imports(SOURCE / "estimators" / "_ode.py")
    assert "scratio.tl" in imports(SOURCE / "__init__.py")


@pytest.mark.parametrize("file", FILES, ids=name_of)
def test_no_wildcard_no_assert_no_print(file):
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        assert not isinstance(node, ast.Assert), f"line {node.lineno}: python -O would drop this check"
        if isinstance(node, ast.ImportFrom):
            assert all(alias.name != "*" for alias in node.names), f"line {node.lineno}"
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and part_of(name_of(file)) != "cli":
            assert node.func.id not in {"print", "eval", "exec"}, f"line {node.lineno}"


@pytest.mark.parametrize("file", FILES, ids=name_of)
def test_nothing_draws_from_a_global_generator(file):
    text = file.read_text(encoding="utf-8")
    if name_of(file) == "_random.py":
        # The one place, for other packages; every test fails that finds the global states changed (conftest.py).
        start, end = text.index("def seeded_globals"), text.index("def row_keys")
        text = (text[:start] + text[end:]).replace("import random\n", "")
    assert not re.search(r"np\.random\.(seed|rand|randn|normal|uniform|choice|permutation|shuffle|randint)\(", text)
    assert not re.search(r"torch\.(manual_seed|seed)\(|seed_everything|^import random", text, flags=re.MULTILINE)


SIDE_EFFECTS = """
import logging, random, sys, warnings
import anndata, lightning.pytorch, matplotlib.pyplot, numpy, pandas, safetensors.torch, scanpy, scvi, seaborn
import sklearn.neighbors, torch, torch.optim.swa_utils, torchdiffeq, tqdm.auto
import scvi.data.fields, scvi.model.base

def state():
    return {
        "root handlers": list(logging.root.handlers),
        "root level": logging.root.level,
        "levels": {n: l.level for n, l in logging.root.manager.loggerDict.items() if hasattr(l, "level") and l.level},
        "warning filters": list(warnings.filters),
        "default dtype": torch.get_default_dtype(),
        "threads": (torch.get_num_threads(), torch.get_num_interop_threads()),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "matmul precision": torch.get_float32_matmul_precision(),
        "grad": torch.is_grad_enabled(),
        "torch generator": torch.random.get_rng_state().tolist(),
        "numpy generator": str(numpy.random.get_state()),
        "python generator": random.getstate(),
        "numpy errors": numpy.geterr(),
        "matplotlib": dict(matplotlib.rcParams),
        "pandas": str(pandas.options.display.max_rows),
        "scanpy verbosity": scanpy.settings.verbosity,
        "scvi seed": scvi.settings.seed,
        "figures": matplotlib.pyplot.get_fignums(),
    }

before = state()
import scratio
lazy = [getattr(scratio, name) for name in scratio.__all__]
after = state()
changed = [name for name in before if before[name] != after[name]]
sys.exit("importing scratio changed: " + ", ".join(changed) if changed else 0)
"""


def test_importing_scratio_changes_nothing():
    result = subprocess.run([sys.executable, "-c", SIDE_EFFECTS], capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stderr
    assert result.stdout == ""


LAZY = """
import sys
import scratio
assert not {"torch", "scvi", "anndata"} & set(sys.modules)
assert "tl" in dir(scratio) and scratio.tl.log_ratio and scratio.stats.typicality
assert scratio.OWN is scratio.model.OWN and "torch" in sys.modules
from scratio import Rest, pl
try:
    scratio.t1
except AttributeError as error:
    print(error)
"""


def test_parts_are_imported_when_they_are_first_used():
    result = subprocess.run([sys.executable, "-c", LAZY], capture_output=True, text=True, timeout=300)
    assert result.stdout == "module 'scratio' has no attribute 't1'\n", result.stderr


OFFERED = """
import pickle, sys
import scratio.model
assert "scratio.fdrl" not in sys.modules and "FDRL" in dir(scratio.model)
for name in [name for name in sys.modules if name.split(".")[0] == "scratio"]:
    del sys.modules[name]
import scratio.fdrl
import scratio.model
from scratio.model import FDRL
assert FDRL is scratio.fdrl.FDRL is scratio.model.FDRL is pickle.loads(pickle.dumps(FDRL))
try:
    scratio.model.FDRL2
except AttributeError as error:
    print(error)
"""


def test_the_other_model_is_found_beside_the_first_whichever_is_imported_before():
    result = subprocess.run([sys.executable, "-c", OFFERED], capture_output=True, text=True, timeout=300)
    assert result.stdout == "module 'scratio.model' has no attribute 'FDRL2'\n", result.stderr


# --- what is public ------------------------------------------------------------------------------------------------


def test_the_public_names():
    assert {"OWN", "__version__", "datasets", "get", "model", "pl", "tl"} <= set(scratio.__all__)
    assert {"differential_abundance", "log_ratio"} <= set(scratio.tl.__all__)
    assert {"embedding", "history", "violin"} <= set(scratio.pl.__all__)
    assert {"OWN", "ScRatio"} <= set(scratio.model.__all__)
    assert re.fullmatch(r"\d+\.\d+\.\d+.*", scratio.__version__)


@pytest.mark.parametrize("file", [f for f in FILES if f.name == "__init__.py"], ids=name_of)
def test_every_package_lists_its_public_names(file):
    module = importlib.import_module(".".join(["scratio", *file.relative_to(SOURCE).parent.parts]))
    assert len(set(module.__all__)) == len(module.__all__)
    assert all(hasattr(module, name) for name in module.__all__)
    # Whatever is defined in private modules and shows here is listed.
    shown = {name for name, value in vars(module).items() if not name.startswith("_") and not inspect.ismodule(value)}
    shown = {name for name in shown if getattr(vars(module)[name], "__module__", "").startswith("scratio")}
    assert shown <= set(module.__all__)


def functions(module) -> list:
    return [getattr(module, name) for name in module.__all__ if inspect.isfunction(getattr(module, name))]


TOOLS, PLOTS, GETTERS, DATASETS = (
    functions(module) for module in (scratio.tl, scratio.pl, scratio.get, scratio.datasets)
)
METHODS = [
    value
    for name, value in inspect.getmembers(scratio.model.ScRatio, inspect.isroutine)
    if not name.startswith("_") and inspect.unwrap(value).__module__.startswith("scratio")
]


@pytest.mark.parametrize("function", TOOLS + PLOTS + GETTERS, ids=lambda f: f"{f.__module__}.{f.__name__}")
def test_tools_and_plots_take_adata_first_and_the_rest_by_name(function):
    parameters = list(inspect.signature(function).parameters.values())
    assert parameters[0].name == "adata"
    rest = parameters[1:]
    # The model of a contrast, and what a plot groups by or shows, may stand second.
    if rest[0].name in ({"groupby", "region"} if function.__module__.startswith("scratio.pl") else {"model"}):
        rest = rest[1:]
    by_name = (inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.VAR_KEYWORD)
    assert all(parameter.kind in by_name for parameter in rest)


@pytest.mark.parametrize("function", [f for f in TOOLS if f is not scratio.tl.summary], ids=lambda f: f.__name__)
def test_tools_write_in_place_unless_a_copy_is_asked_for(function):
    parameters = inspect.signature(function).parameters
    assert parameters["copy"].default is False
    # What is added to an earlier result goes under that result's key.
    key = parameters["key" if function is scratio.tl.regions else "key_added"]
    assert key.default != inspect.Parameter.empty


@pytest.mark.parametrize("function", PLOTS, ids=lambda f: f.__name__)
def test_plots_take_axes_and_do_not_show_by_default(function):
    parameters = inspect.signature(function).parameters
    assert parameters["ax"].default is None
    assert parameters["show"].default is None
    assert "save" not in parameters


def sections(docstring: str) -> dict[str, str]:
    """Sections of a numpydoc docstring by name."""
    parts = re.split(r"^([A-Z][A-Za-z ]+)\n-{3,}\n", inspect.cleandoc(docstring), flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def documented(section: str) -> set[str]:
    """Names of the parameters of a section: its lines that are not indented."""
    lines = [line.split(" : ")[0] for line in section.splitlines() if line and not line.startswith(" ")]
    return {name.strip().lstrip("*") for line in lines for name in line.split(",")}


def check_documentation(function) -> dict[str, str]:
    assert function.__doc__
    found = sections(function.__doc__)
    parameters = {name for name in inspect.signature(function).parameters if name not in {"self", "cls"}}
    assert documented(found.get("Parameters", "")) == parameters
    return found


@pytest.mark.parametrize("function", TOOLS + PLOTS + GETTERS + DATASETS, ids=lambda f: f"{f.__module__}.{f.__name__}")
def test_public_functions_have_every_section(function):
    found = check_documentation(function)
    assert {"Parameters", "Examples"} <= found.keys()
    assert {"Returns", "Raises"} & found.keys()
    assert ">>> " in found["Examples"]


@pytest.mark.parametrize("method", METHODS, ids=lambda f: f.__name__)
def test_methods_of_the_model_have_every_section(method):
    found = check_documentation(method)
    assert {"Returns", "Raises"} & found.keys() or len(inspect.signature(method).parameters) == 0


def test_the_model_is_documented_with_an_example():
    found = sections(scratio.model.ScRatio.__doc__)
    parameters = set(inspect.signature(scratio.model.ScRatio.__init__).parameters) - {"self"}
    assert documented(found["Parameters"]) == parameters
    assert ">>> " in found["Examples"]


def test_the_api_is_the_designs():
    # Outside users call exactly this.
    def names(function) -> set[str]:
        return set(inspect.signature(function).parameters)

    model = scratio.model.ScRatio
    assert names(model.setup_anndata) >= {"adata", "obsm_key", "condition_keys", "continuous_keys", "sample_key"}
    assert names(model) >= {"adata", "parametrization", "schedule", "sigma_min", "sigma", "n_hidden", "n_layers"}
    train = {"max_steps", "batch_size", "accelerator", "devices", "strategy", "early_stopping", "random_state"}
    assert names(model.train) >= train
    query = {
        "adata",
        "numerator",
        "denominator",
        "method",
        "field",
        "divergence",
        "n_steps",
        "return_std",
        "batch_size",
    }
    assert names(model.log_ratio) >= query
    assert inspect.signature(model.log_ratio).parameters["method"].default == "auto"
    assert names(model.log_prob) >= {"adata", "condition"}
    assert names(model.sample) >= {"n_samples", "condition", "random_state"}
    for function in (model.velocity, model.score):
        assert list(inspect.signature(function).parameters) == ["self", "x", "t", "condition"]
    analysis = {
        "condition_key",
        "treatment",
        "reference",
        "use_rep",
        "covariate_keys",
        "sample_key",
        "n_folds",
        "method",
    }
    analysis |= {"key_added", "random_state", "copy", "model_kwargs", "train_kwargs"}
    assert names(scratio.tl.differential_abundance) >= analysis
