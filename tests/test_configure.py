"""Configuration: every file parses, what is written reads back, mistakes get one sentence."""

import dataclasses
import json
from pathlib import Path

import pytest

from glm_jax.configure import read_configuration
from glm_jax.errors import UsageError
from glm_jax.train.run_folder import gin_text, json_text

ROOT = Path(__file__).resolve().parents[1]
RUNS = sorted((ROOT / "configs" / "runs").glob("*.gin"))
DEMO = ROOT / "configs" / "runs" / "demo.gin"


@pytest.mark.parametrize("path", RUNS, ids=lambda path: path.stem)
def test_every_run_is_valid_and_reads_back(path, tmp_path):
    config = read_configuration([path])
    written = tmp_path / "config.gin"
    written.write_text(gin_text(config))
    assert read_configuration([written]) == config
    assert json.loads(json_text(config)) == json.loads(json.dumps(dataclasses.asdict(config)))


@pytest.mark.parametrize("folder", ["models", "optim", "data"])
def test_every_part_fits_into_a_run(folder):
    parts = sorted((ROOT / "configs" / folder).glob("*.gin"))
    assert parts
    for part in parts:
        # The published models are all longer than the demo's sequences.
        read_configuration([DEMO, part])


def test_the_promised_runs_exist():
    assert {"demo", "glm_base", "glm_large", "glm_10b"} <= {path.stem for path in RUNS}


def test_runs_use_the_recipes_of_the_original():
    base, large, giant = (
        read_configuration([ROOT / "configs" / "runs" / f"glm_{name}.gin"])
        for name in ("base", "large", "10b")
    )
    assert (base.optimizer.learning_rate, base.optimizer.decay_steps) == (4e-4, 120_000)
    assert (base.train.num_steps, base.data.batch_size) == (150_000, 1024)
    assert (large.optimizer.learning_rate, large.train.num_steps) == (2e-4, 200_000)
    assert (giant.optimizer.beta2, giant.optimizer.epsilon) == (0.95, 1e-8)
    assert (giant.blanks.token, giant.blanks.sentence, giant.blanks.document) == (0.5, 0.3, 0.2)
    assert giant.blanks.task_masks and giant.blanks.block_mask_probability == 0.1


def test_later_files_and_bindings_win(tmp_path):
    later = tmp_path / "later.gin"
    later.write_text("train.num_steps = 7\noptimizer.beta1 = 0.5\n")
    config = read_configuration(
        [DEMO, later], ["optimizer.beta1=0.6", "train.run_folder=runs/other"]
    )
    assert (config.train.num_steps, config.optimizer.beta1) == (7, 0.6)
    assert config.train.run_folder == "runs/other"


def test_whole_numbers_serve_as_floats():
    assert read_configuration([DEMO], ["optimizer.clip_norm=2"]).optimizer.clip_norm == 2.0


def test_macros_can_be_overridden_but_not_invented(tmp_path):
    path = tmp_path / "macro.gin"
    path.write_text("include 'configs/runs/demo.gin'\nBATCH = 8\ndata.batch_size = %BATCH\n")
    assert read_configuration([path], ["BATCH=32"]).data.batch_size == 32
    with pytest.raises(UsageError, match="names no section"):
        read_configuration([path], ["BACTH=32"])


@pytest.mark.parametrize(
    ("binding", "message"),
    [
        ("optimiser.beta1=0.5", "unknown section 'optimiser'; did you mean 'optimizer'"),
        ("optimizer.beta3=0.5", "unknown name 'beta3' in section optimizer; did you mean"),
        ("optimizer.learning_rate=fast", "'fast', of type str; expected type float"),
        ("train.num_steps=1.5", "train.num_steps is 1.5, of type float; expected type int"),
        ("blanks.task_masks=1", "expected type bool"),
        ("train.num_steps=0", "train.num_steps is 0; expected an integer of at least 1"),
        ("optimizer.decay=steep", "optimizer.decay is 'steep'; expected one of"),
        ("optimizer.learning_rate=-1.0", "expected a positive number"),
        ("data.sequence_length=4096", "model.max_sequence_length = 128"),
        ("train.accumulation_steps=3", "does not divide data.batch_size = 8"),
        ("model.num_attention_heads=3", "num_attention_heads"),
        ("mesh.data=0", "mesh.data is 0"),
        ("layout.vocab='fsdp'", "layout.vocab is 'fsdp', of type str; expected type tuple"),
        (
            "layout.vocab=('fsdp', 1)",
            "an item of layout.vocab is 1, of type int; expected type str",
        ),
        ("train.num_steps", "has no value"),
    ],
)
def test_a_wrong_binding_is_one_sentence(binding, message):
    with pytest.raises(UsageError) as caught:
        read_configuration([DEMO], [binding])
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("include 'configs/none.gin'\n", "line 1, includes configs/none.gin, which does not exist"),
        ("\noptimizer.beta3 = 1\n", "line 2"),
        ("optimizer.beta1 = = 3\n", "can't be read"),
        ("train.num_steps = 3\n", "is not set, and it has no default"),
    ],
)
def test_a_wrong_file_is_one_sentence(text, message, tmp_path):
    path = tmp_path / "wrong.gin"
    path.write_text(text)
    with pytest.raises(UsageError) as caught:
        read_configuration([path])
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_named():
    with pytest.raises(UsageError, match=r"nowhere\.gin does not exist"):
        read_configuration(["nowhere.gin"])


def test_included_files_are_found_beside_the_file_then_here_then_in_the_package(
    tmp_path, monkeypatch
):
    here, beside = tmp_path / "here", tmp_path / "beside"
    for folder, steps in ((here, 1), (beside, 2)):
        folder.mkdir()
        (folder / "both.gin").write_text(f"train.num_steps = {steps}\n")
    (here / "only_here.gin").write_text("train.seed = 3\n")
    path = beside / "run.gin"
    path.write_text(
        "include 'configs/runs/demo.gin'\ninclude 'only_here.gin'\ninclude \"both.gin\"  # last\n"
    )
    monkeypatch.chdir(here)
    config = read_configuration([path])
    assert (config.train.num_steps, config.train.seed) == (2, 3)
    assert config.train.run_folder == "runs/demo"
    assert read_configuration([path, "both.gin"]).train.num_steps == 1


def test_a_run_of_the_package_is_found_from_any_folder_and_python_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(ROOT))  # where gin itself would take configs for a package
    assert read_configuration(["configs/runs/demo.gin"]) == read_configuration([DEMO])


def test_statements_keep_their_order_around_an_include(tmp_path):
    (tmp_path / "part.gin").write_text("train.num_steps = 2\ntrain.seed = 2\n")
    path = tmp_path / "run.gin"
    path.write_text(
        f"include {str(DEMO)!r}\ntrain.seed = 1\ninclude 'part.gin'\ntrain.num_steps = 3\n"
    )
    train = read_configuration([path]).train
    assert (train.num_steps, train.seed) == (3, 2)


@pytest.mark.parametrize("included", ["a.gin", "b.gin"])
def test_a_file_that_includes_itself_is_one_sentence(included, tmp_path):
    (tmp_path / "a.gin").write_text(f"include '{included}'\n")
    (tmp_path / "b.gin").write_text("\ninclude './a.gin'\n")
    with pytest.raises(UsageError, match=r"line \d, includes .*, which includes itself$"):
        read_configuration([tmp_path / "a.gin"])


def test_a_file_may_be_included_twice(tmp_path):
    path = tmp_path / "twice.gin"
    path.write_text(f"include {str(DEMO)!r}\ntrain.seed = 1\ninclude {str(DEMO)!r}\n")
    assert read_configuration([path]).train.seed == 1


@pytest.mark.parametrize(
    "text", ["foo/train.num_steps = 5\n", "train.num_steps = 5\nfoo/train.num_steps = 6\n"]
)
def test_a_scoped_value_is_refused(text, tmp_path):
    path = tmp_path / "scoped.gin"
    path.write_text(f"include {str(DEMO)!r}\n{text}")
    for files, bindings in (([path], []), ([DEMO], ["foo/train.num_steps=5"])):
        with pytest.raises(UsageError, match="has the scope 'foo', which nothing reads"):
            read_configuration(files, bindings)


@pytest.mark.parametrize(
    ("encode", "store"),
    [
        (lambda text: text.encode("utf-8"), "a\u2028b\x85c\x0cd"),
        (lambda text: text.encode("utf-8-sig"), "中文"),
        (lambda text: text.replace("\n", "\r\n").encode("utf-8"), "windows"),
        (lambda text: text.rstrip("\n").encode("utf-8"), "no newline at the end"),
    ],
    ids=["other line ends", "byte order mark", "CRLF", "no final newline"],
)
def test_utf_8_text_of_any_kind_is_read(encode, store, tmp_path):
    path = tmp_path / "text.gin"
    path.write_bytes(encode(f"include {str(DEMO)!r}\ndata.store = '{store}'\n"))
    assert read_configuration([path]).data.store == store


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("train.num_steps = 3\n".encode("utf-16"), "is not UTF-8 text"),
        ("data.store = 'é'\n".encode("latin-1"), "is not UTF-8 text"),
        (b"data.store = '\0'\n", "contains NUL characters"),
        (b"include configs/runs/demo.gin\n", "expected include 'FILE'"),
        (b"train.num_steps = [1,\n", "EOF in multi-line statement"),
        (b"train.num_steps = %STEPS\n", "the macro %STEPS is used, but not defined"),
        (b"import no_such_module\n", "No module named 'no_such_module'"),
        (b"train.num_steps = '" + b"9" * 1000 + b"'\n", "9..., of type str; expected type int"),
    ],
)
def test_a_file_that_is_no_configuration_is_one_sentence(content, message, tmp_path):
    path = tmp_path / "wrong.gin"
    path.write_bytes(content)
    with pytest.raises(UsageError) as caught:
        read_configuration([DEMO, path])
    assert message in str(caught.value)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 300


@pytest.mark.parametrize(
    ("binding", "message"),
    [
        (
            "train.seed=9223372036854775808",
            "train.seed is 9223372036854775808; expected",
        ),
        (
            "data.seed=-9223372036854775809",
            "data.seed is -9223372036854775809; expected",
        ),
        ("train.num_steps=9223372036854775808", "expected an integer below 2^63"),
        ("optimizer.learning_rate=1" + "0" * 400, "too large for type float"),
        ("foo/train.num_steps=5", "has the scope 'foo', which nothing reads"),
        ("foo/macro.value=5", "unknown section 'macro'"),
        ("gin.singleton.constructor=5", "unknown section 'gin.singleton'"),
    ],
)
def test_what_is_out_of_range_or_read_by_nothing_is_one_sentence(binding, message):
    with pytest.raises(UsageError) as caught:
        read_configuration([DEMO], [binding])
    assert message in str(caught.value)


def test_seeds_of_64_bits_are_allowed():
    config = read_configuration([DEMO], ["train.seed=-9223372036854775808", "data.seed=-1"])
    assert (config.train.seed, config.data.seed) == (-(2**63), -1)


def test_a_deeply_nested_value_is_one_sentence():
    with pytest.raises(UsageError, match="expected type int"):
        read_configuration([DEMO], ["train.num_steps=" + "[" * 5000])


def test_an_empty_path_is_one_sentence(tmp_path):
    with pytest.raises(UsageError, match=r"^--gin_file is empty; expected"):
        read_configuration([""])
    (tmp_path / "a.gin").write_text("include ' '\n")
    with pytest.raises(UsageError, match=r"the include of .*a\.gin is empty"):
        read_configuration([tmp_path / "a.gin"])


@pytest.mark.parametrize("path", [".", str(ROOT), "~/no such folder/a.gin", "../nothing.gin/"])
def test_a_path_of_no_file_is_one_sentence(path):
    with pytest.raises(UsageError, match="does not exist"):
        read_configuration([path])
