"""`glm-jax tokenizer`: training on text of one's own, and what it shows of every kind."""

import json
import re

import pytest

from glm_jax.cli.main import main
from glm_jax.tokenizer import load_tokenizer
from glm_jax.tokenizer.held_out import HeldOutLines, Sample

BERT_PIECES = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "hello", "##s", "!"]


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    """A folder of text in which every line is another one."""
    folder = tmp_path_factory.mktemp("sources")
    lines = [f"Line {number} says {number * number}; the next says more." for number in range(900)]
    (folder / "a.txt").write_text("\n".join(lines[:600]))
    records = [json.dumps({"body": "\n".join(lines[i : i + 10])}) for i in range(600, 900, 10)]
    (folder / "b.jsonl").write_text("\n".join([*records, "no json"]) + "\n")
    return folder


@pytest.fixture
def vocabulary(tmp_path):
    (tmp_path / "vocab.txt").write_text("\n".join(BERT_PIECES) + "\n")
    return tmp_path / "vocab.txt"


def test_train_makes_a_tokenizer_and_measures_it(sources, tmp_path, capsys):
    out = tmp_path / "mine"
    arguments = [str(sources), f"--out={out}", "--vocab_size=340", "--text_key=body"]
    assert main(["tokenizer", "train", *arguments]) == 0
    printed = capsys.readouterr().out
    assert "31 documents" in printed and "bad json lines: 1" in printed
    assert "350 tokens with the special ones, 384 rows" in printed
    held_out = re.search(r"held out +(\d+) lines .* (\d\.\d\d) bytes a token", printed)
    assert held_out and 1 <= int(held_out[1]) < 40 and 1 < float(held_out[2]) < 10
    tokenizer = load_tokenizer(out)
    assert {"MASK", "sMASK", "gMASK", "dBLOCK"} <= set(tokenizer.special)
    assert tokenizer.decode(tokenizer.encode("Line 3 says 9;")) == "Line 3 says 9;"


def test_what_is_held_out_is_not_trained_on():
    lines = [f"line {number}" for number in range(5000)]
    texts = ["\n".join(lines), *lines[:1000]]  # the first thousand come twice
    kept = [line for text in HeldOutLines().taken_from(texts) for line in text.split("\n") if line]
    taken = set(lines) - set(kept)
    assert 20 < len(taken) < 100
    assert kept == [line for line in lines + lines[:1000] if line not in taken]


def test_held_out_lines_measure_bytes_and_tokens(sources, tmp_path):
    assert (
        main(["tokenizer", "train", str(sources), f"--out={tmp_path}/t", "--vocab_size=340"]) == 2
    )  # b.jsonl has no key "text"
    held_out = HeldOutLines()
    texts = [f"é {number}" for number in range(2000)]
    kept = [text for text in held_out.taken_from(texts) if text]
    taken = [text for text in texts if text not in set(kept)]
    (tmp_path / "text.txt").write_text("\n".join(kept))
    arguments = [str(tmp_path / "text.txt"), f"--out={tmp_path}/t", "--vocab_size=300"]
    assert main(["tokenizer", "train", *arguments]) == 0
    tokenizer = load_tokenizer(tmp_path / "t")
    measured = held_out.measure(tokenizer)
    assert measured is not None and measured.num_lines == len(taken)
    assert measured.num_bytes == sum(len(text.encode()) for text in taken)
    assert measured.num_tokens == sum(len(tokenizer.encode_text(text)) for text in taken)
    assert HeldOutLines().measure(tokenizer) is None


def test_a_sample_is_spread_evenly_and_always_the_same():
    samples = [Sample(4000), Sample(4000)]
    for sample in samples:
        for number in range(40_000):
            sample.add(str(number))
    assert samples[0].items == samples[1].items
    chosen = [int(item) for item in samples[0].items]
    assert len(set(chosen)) == 4000
    for first in range(0, 40_000, 10_000):
        of_quarter = sum(first <= number < first + 10_000 for number in chosen)
        assert abs(of_quarter - 1000) < 5 * 26  # five standard deviations


def test_show_prints_the_table_and_every_text(vocabulary, capsys):
    arguments = [str(vocabulary), "Hellos [MASK]!", "hello\nhello", "--task_mask"]
    assert main(["tokenizer", "show", "bert", *arguments]) == 0
    printed = capsys.readouterr().out
    assert "12 tokens with the special ones, 128 rows" in printed
    assert re.search(r"^0 +pad +\[PAD\] +\(one id for pad, eos\)$", printed, re.MULTILINE)
    assert re.search(r"^10 +gMASK +\[gMASK\]$", printed, re.MULTILINE)
    assert "ids     5 6 4 7\npieces  hello | ##s | [MASK] | !\ndecoded hellos [MASK] !" in printed
    assert "text    hello\\nhello\nids     5 5\n" in printed


def test_show_takes_folders_saved_or_of_files(vocabulary, capsys):
    load_tokenizer("bert", vocabulary).save(vocabulary.parent / "saved")
    outputs = []
    for where in (["bert", str(vocabulary.parent)], [str(vocabulary.parent / "saved")]):
        assert main(["tokenizer", "show", *where, "hello"]) == 0
        outputs.append(capsys.readouterr().out)
    assert outputs[0] == outputs[1] and "ids     5\n" in outputs[0]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["show", "bert"], "needs the path of its vocab.txt"),
        (["show", "bert", "hello"], "needs its vocab.txt: there is no file"),
        (["show", "nowhere", "hello"], "neither a folder with a saved tokenizer nor one of"),
        (["show", "bert", "VOCAB", "--vocab_size=3"], "--vocab_size means nothing to"),
        (["show", "bert", "VOCAB", "--fix_command_token"], "only kind 'chinese'"),
        (["show", "bert", "VOCAB", "--sentinels=-1"], "sentinels is -1"),
        (["train", "SOURCES", "--vocab_size=300"], "needs --out"),
        (["train", "SOURCES", "--out=OUT"], "needs --vocab_size"),
        (["train", "SOURCES", "--out=OUT", "--vocab_size=0"], "--vocab_size is 0"),
        (["train", "SOURCES", "--out=OUT", "--vocab_size=300", "--task_mask"], "--task_mask means"),
        (["train", "nowhere", "--out=OUT", "--vocab_size=300"], "'nowhere' matches no file"),
        (["train", "VOCAB", "--out=OUT", "--vocab_size=99999"], "gives at most"),
        (["train", "VOCAB", "--out=FULL", "--vocab_size=300"], "neither a tokenizer nor empty"),
        (["trains", "VOCAB"], "invalid choice: 'trains'"),
    ],
)
def test_what_is_impossible_is_said_in_a_sentence(
    arguments, message, sources, vocabulary, tmp_path, capsys
):
    places = {
        "VOCAB": str(vocabulary),
        "SOURCES": str(sources),
        "--out=OUT": f"--out={tmp_path}/out",
        "--out=FULL": f"--out={tmp_path}",
    }
    assert main(["tokenizer", *(places.get(part) or part for part in arguments)]) == 2
    complaint = capsys.readouterr().err.strip().splitlines()[-1]
    assert message in complaint
    assert not (tmp_path / "out").exists()


def test_a_tokenizer_is_replaced_on_request_only(sources, tmp_path, capsys):
    arguments = ["tokenizer", "train", str(sources / "a.txt"), f"--out={tmp_path}/mine"]
    assert main([*arguments, "--vocab_size=320"]) == 0
    assert main([*arguments, "--vocab_size=321"]) == 2
    assert "already; name another folder or give --overwrite" in capsys.readouterr().err
    assert load_tokenizer(tmp_path / "mine").special["eos"] == 320
    assert main([*arguments, "--vocab_size=321", "--overwrite"]) == 0
    assert load_tokenizer(tmp_path / "mine").special["eos"] == 321


def test_a_place_that_cannot_be_written_is_a_failure(sources, vocabulary, capsys):
    arguments = [str(sources / "a.txt"), f"--out={vocabulary}/inside", "--vocab_size=320"]
    assert main(["tokenizer", "train", *arguments]) == 1
    assert "can't be written to" in capsys.readouterr().err


def test_of_two_trainings_for_one_folder_the_second_to_end_is_refused(
    sources, tmp_path, capsys, monkeypatch
):
    from glm_jax.tokenizer import train

    arguments = ["tokenizer", "train", str(sources / "a.txt"), f"--out={tmp_path}/mine"]
    lines = train._lines

    def meanwhile(texts):
        monkeypatch.setattr(train, "_lines", lines)
        assert main([*arguments, "--vocab_size=320"]) == 0
        return lines(texts)

    monkeypatch.setattr(train, "_lines", meanwhile)
    assert main([*arguments, "--vocab_size=330"]) == 2
    assert "already; name another folder" in capsys.readouterr().err
    assert load_tokenizer(tmp_path / "mine").vocab_size < 340
    assert sorted(path.name for path in tmp_path.iterdir() if "mine" in path.name) == ["mine"]
