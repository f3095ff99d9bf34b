"""What SECURITY.md says: no code of others is run, and no token or local path leaves the machine with a student."""

import ast
import json
import os
from pathlib import Path

import forked
import pytest
import runs
import tiny
from places import ROOT

from hf_lelp import Teacher, load_student
from hf_lelp.classifiers import load_processor
from hf_lelp.student.card import StudentCard

SOURCES = [
    *sorted((ROOT / "hf_lelp").rglob("*.py")),
    ROOT / "run_distill.py",
    *sorted((ROOT / "examples").glob("*.py")),
]
UNSAFE = {"eval", "exec", "compile", "__import__", "os.system", "os.popen", "pickle.load", "pickle.loads", "torch.load"}
UNSAFE |= {"yaml.load", "yaml.unsafe_load", "yaml.full_load", "joblib.load", "np.load"}


def calls() -> list[tuple[str, ast.Call, str]]:
    """Every call: its place, the call, and the name of what is called."""
    found = []
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call):
                name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
                found.append((f"{path.relative_to(ROOT).as_posix()}:{node.lineno}", node, name))
    return found


def test_no_call_trusts_remote_code() -> None:
    trusting = [
        place
        for place, call, _ in calls()
        for keyword in call.keywords
        if keyword.arg == "trust_remote_code"
        and not (isinstance(keyword.value, ast.Constant) and not keyword.value.value)
    ]
    assert trusting == []


def test_every_auto_class_is_told_not_to() -> None:
    """The default of transformers is to ask whoever sits at the terminal."""
    asking, loading, others = [], set(), set()
    for place, call, name in calls():
        if not place.startswith("hf_lelp/") or name != "from_pretrained":  # an example names its models itself
            continue
        owner = ast.unparse(call.func).removesuffix(".from_pretrained")
        if "auto" not in owner.lower():
            others.add(owner)
            continue
        loading.add(place.partition(":")[0])
        told = any(keyword.arg == "trust_remote_code" for keyword in call.keywords)
        # Others pass a dictionary on, that has it.
        passed_on = any(
            keyword.arg is None and ast.unparse(keyword.value) in ("hub", "settings") for keyword in call.keywords
        )
        if not (told or passed_on):
            asking.append(place)
    assert asking == []
    # A file or a class that is new here must be looked at.
    assert loading == {
        "hf_lelp/classifiers.py",
        "hf_lelp/making/start.py",
        "hf_lelp/teacher/kinds/encoder.py",
        "hf_lelp/teacher/teacher.py",
    }
    of_known_classes = {"base", "type(model)", "type(processing_class)"}  # of transformers itself
    assert others == {"ClassProjections", "Encoder", "Teacher", "super()", *of_known_classes}


def test_nothing_is_unpickled_evaluated_or_read_unsafely() -> None:
    assert {place: ast.unparse(call.func) for place, call, _ in calls() if ast.unparse(call.func) in UNSAFE} == {}
    source = "\n".join(path.read_text(encoding="utf-8") for path in SOURCES)
    assert source.count("yaml.safe_load(") == 2


@pytest.mark.parametrize("model_type", ["bert", "unheard_of"])
def test_code_that_comes_with_a_model_is_not_run(
    model_type: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, ran = tmp_path / "model", tmp_path / "ran"
    runs.teacher_model().save_pretrained(folder)
    tiny.tokenizer().save_pretrained(folder)
    code = ["from pathlib import Path", f"Path({str(ran)!r}).touch()"]
    code += ["from transformers import BertConfig, BertForSequenceClassification, PreTrainedTokenizerFast"]
    code += [
        "class C(BertConfig): model_type = 'unheard_of'",
        "class M(BertForSequenceClassification): config_class = C",
    ]
    code += ["class T(PreTrainedTokenizerFast): pass"]
    (folder / "code.py").write_text("\n".join(code))
    config = json.loads((folder / "config.json").read_text())
    config |= {
        "model_type": model_type,
        "auto_map": {"AutoConfig": "code.C", "AutoModelForSequenceClassification": "code.M"},
    }
    (folder / "config.json").write_text(json.dumps(config))
    tokens = json.loads((folder / "tokenizer_config.json").read_text())
    tokens["auto_map"] = {"AutoTokenizer": ["code.T", "code.T"]}
    (folder / "tokenizer_config.json").write_text(json.dumps(tokens))
    # Whoever is asked says yes; but nobody is asked.
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("the user was asked"))

    for load in (
        lambda: Teacher.from_pretrained(str(folder)),
        lambda: load_processor(str(folder)),
        lambda: load_student(str(folder)),
        lambda: runs.trainer(runs.config(tmp_path), model=str(folder), processing_class=None),
    ):
        if model_type == "bert":  # transformers has the model: its own code is used
            load()
        else:
            with pytest.raises(ValueError, match="custom code which must be executed"):
                load()
    assert not ran.exists()
    if model_type == "unheard_of":  # the trap is one
        Teacher.from_pretrained(str(folder), trust_remote_code=True)
        assert ran.exists()


def test_no_token_and_no_local_path_in_what_a_run_writes(tmp_path: Path) -> None:
    folder = tmp_path / "canary-folder"
    guide = tiny.named(tiny.classifier(hidden_size=32))
    for name, model in (("teacher", guide), ("student", tiny.classifier(seed=1))):
        model.save_pretrained(folder / name)
        tiny.tokenizer().save_pretrained(folder / name)
    tiny.dataset(guide, 200).to_parquet(folder / "train.parquet")
    options = {
        "teacher_model": folder / "teacher",
        "student_model": folder / "student",
        "train_file": folder / "train.parquet",
        "output_dir": folder / "out",
        "columns_cache_dir": folder / "columns",
        "num_subclasses": 3,
        "max_steps": 2,
        "save_steps": 1,
        "eval_steps": 1,
        "eval_strategy": "steps",
        "load_best_model_at_end": True,
        "report_to": "none",
    }
    arguments = [part for key, value in options.items() for part in (f"--{key}", str(value))]
    command = [ROOT / "run_distill.py", "--use_cpu", "--config", "/dev/null", *arguments, "--method", "kd", "lelp"]
    done = forked.run(*command, cwd=folder, env={**os.environ, "HF_TOKEN": "hf_canarytoken"})
    assert done.returncode == 0, done.stderr
    written = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert {"out/lelp/README.md", "out/lelp/training_args.bin", "out/all_results.json"} <= written.keys()
    assert [name for name, content in written.items() if b"hf_canarytoken" in content] == []
    assert "hf_canarytoken" not in done.stdout + done.stderr
    # To go on, Trainer must find the best checkpoint again; nothing else knows where it was.
    told = {name for name, content in written.items() if b"canary-folder" in content}
    assert {Path(name).name for name in told} == {"trainer_state.json"} and all("checkpoint-" in name for name in told)


def test_a_name_that_is_a_path_or_markup_gets_on_no_card(tmp_path: Path) -> None:
    (tmp_path / "here").mkdir()
    for name in (str(tmp_path / "here"), "../here", "a`](javascript:alert(1))", "<script>", "x y"):
        card = StudentCard(
            "me/student", "lelp", "lelp", "AutoModelForSequenceClassification", ["a"], student=name, teacher=name
        )
        assert name not in str(card.render())
    known = StudentCard(
        "me/s", "kd", "kd", "AutoModelForSequenceClassification", ["a"], student="org/base", teacher="org/big"
    )
    assert "huggingface.co/org/base" in str(known.render()) and "huggingface.co/org/big" in str(known.render())
