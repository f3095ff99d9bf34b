"""LELPTrainer ends as Trainer does: the same metrics, files and log, or the difference is listed here with its reason.

Small classifiers train by both, over the arguments of Trainer and the fields of TrainingArguments that a training on a
CPU can meet. A covering array holds every pair of values of two of them in few runs.
"""

import fnmatch
import itertools
from collections.abc import Iterable, Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import runs
import tiny
import torch
from transformers import DataCollatorWithPadding, Trainer, TrainerCallback, TrainingArguments, set_seed

from hf_lelp import LELPTrainer
from hf_lelp.metrics import compute_metrics

ROWS, BATCH = 16, 8
EVALUATED: dict[str, Any] = {"eval_strategy": "steps", "eval_steps": 2}


def own_metrics(prediction: Any) -> dict[str, float]:
    return {"rows": float(len(prediction.label_ids)), "given": float(prediction.losses is not None)}


class Counts(TrainerCallback):
    """Lets no epoch but the first be evaluated or saved; a callback of the user's own changes what Trainer does."""

    def on_epoch_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        control.should_log = True


# Each factor has values: settings of TrainingArguments, or arguments of Trainer (those that it has by that name).
FACTORS: dict[str, list[dict[str, Any]]] = {
    "form": [{"alpha": 1.0}, {"student_head": "subclass"}, {"student_head": "auxiliary"}],  # of LELPTrainer alone
    "schedule": [
        {"save_strategy": "no"},
        {**EVALUATED, "save_strategy": "steps", "save_steps": 2, "save_total_limit": 1},
        {"eval_strategy": "epoch", "save_strategy": "epoch", "load_best_model_at_end": True, "save_only_model": True},
        {**EVALUATED, "save_strategy": "best", "metric_for_best_model": "loss", "greater_is_better": False},
        {**EVALUATED, "save_strategy": "no", "eval_delay": 3, "lr_scheduler_type": "reduce_lr_on_plateau"},
    ],
    "length": [{"num_train_epochs": 2}, {"max_steps": 3}, {"num_train_epochs": 1.4}],
    "optimizer": [
        {"optim": "adamw_torch", "weight_decay": 0.1, "adam_beta1": 0.8, "adam_beta2": 0.9, "adam_epsilon": 1e-6},
        {"optim": "adafactor", "optim_args": "scale_parameter=False,relative_step=False"},
        {"optimizer_cls_and_kwargs": (torch.optim.SGD, {"lr": 0.05})},
    ],
    "rate": [
        {"warmup_steps": 1},
        {"lr_scheduler_type": "cosine_with_min_lr", "lr_scheduler_kwargs": {"min_lr": 1e-4}, "learning_rate": 1e-2},
    ],
    "step": [{}, {"gradient_accumulation_steps": 2}, {"max_grad_norm": 0.0, "torch_empty_cache_steps": 1}],
    "precision": [{}, {"bf16": True}, {"bf16_full_eval": True}],
    "memory": [{}, {"gradient_checkpointing": True}, {"auto_find_batch_size": True}],
    "loss": [{}, {"label_smoothing_factor": 0.1}, {"neftune_noise_alpha": 5.0}],
    "logging": [
        {"logging_steps": 1},
        {"logging_strategy": "epoch", "include_num_input_tokens_seen": "all"},
        {"logging_steps": 3, "logging_first_step": True, "include_num_input_tokens_seen": "non_padding"},
        {"logging_strategy": "no", "logging_nan_inf_filter": False},
    ],
    "evaluation": [
        {"eval_on_start": True, "per_device_eval_batch_size": 5},
        {"prediction_loss_only": True},
        {"eval_do_concat_batches": False, "eval_accumulation_steps": 1},
        {"eval_use_gather_object": True, "include_for_metrics": ["loss", "inputs"]},
    ],
    "reading": [
        {},
        {"dataloader_drop_last": True, "train_sampling_strategy": "group_by_length"},
        {"train_sampling_strategy": "sequential", "dataloader_pin_memory": False, "dataloader_in_order": False},
    ],
    "columns": [{"remove_unused_columns": False}, {"label_names": ["labels"]}],
    "seeds": [{"seed": 7}, {"data_seed": 3, "accelerator_config": {"use_seedable_sampler": False}}],
    "collator": [{}, {"data_collator": DataCollatorWithPadding(tiny.tokenizer())}],
    "model": [{}, {"model_init": lambda: runs.student()}],
    "data": [{}, {"eval_dataset": "several"}],
    "metrics": [{"compute_metrics": compute_metrics}, {"compute_metrics": own_metrics}, {"compute_metrics": None}],
    "logits": [{}, {"preprocess_logits_for_metrics": lambda logits, labels: logits.argmax(-1)}],
    "callbacks": [{}, {"callbacks": [Counts]}],
}
# Run once, as these take time: processes that read, and a thread that watches memory.
SLOW = {"dataloader_num_workers": 1, "dataloader_prefetch_factor": 1, "dataloader_persistent_workers": True}
SLOW |= {"skip_memory_metrics": False}
OF_TRAINER = {
    *("optimizer_cls_and_kwargs", "data_collator", "model_init", "eval_dataset", "compute_metrics"),
    *("preprocess_logits_for_metrics", "callbacks"),
}
OF_LELP = {"alpha", "student_head"}

# Fields that no run here sets, by the reason. A field that transformers adds has to go here or into FACTORS.
NOT_RUN = {
    "the same in every run: quiet, on the CPU, in a folder": """
        output_dir per_device_train_batch_size use_cpu report_to disable_tqdm""",
    "names and places of a tracker or of the Hub; tests/project/test_hub.py publishes": """
        run_name project trackio_space_id trackio_bucket_id trackio_static_space_id push_to_hub hub_token hub_model_id
        hub_private_repo hub_strategy hub_always_push hub_revision""",
    "needs an accelerator or several processes; tests/distributed launches them": """
        fp16 fp16_full_eval tf32 use_liger_kernel liger_kernel_config parallelism_config ddp_find_unused_parameters
        ddp_bucket_cap_mb ddp_broadcast_buffers ddp_static_graph ddp_backend ddp_timeout fsdp fsdp_config deepspeed
        local_rank average_tokens_across_devices log_on_each_node save_on_each_node log_level_replica""",
    "changes the whole process": "log_level full_determinism debug dataloader_multiprocessing_context",
    "takes a minute; tests/trainer/test_trainer_dropin.py compiles": """
        torch_compile torch_compile_backend torch_compile_mode""",
    "says how to resume, or what to do after a signal; tests/student/test_checkpoints.py does": """
        resume_from_checkpoint ignore_data_skip restore_callback_states_from_checkpoint enable_jit_checkpoint""",
    "read by scripts, not by Trainer": "do_train do_eval do_predict",
    "nothing to do for a small classifier of text, or of optimizers that are not installed": """
        use_cache optim_target_modules length_column_name activation_checkpointing activation_checkpointing_kwargs
        gradient_checkpointing_kwargs""",
    "refused with the default metrics, see docs/reference/errors.md": "batch_eval_metrics",
    "gone in newer versions": "logging_dir warmup_ratio",
}

# Files that LELPTrainer alone writes, with the reason.
MORE_FILES = {
    "*README.md": "the student's card",
    "*checksums.json": "what was cut short or changed is refused",
    "*distillation.json": "a checkpoint is resumed with the settings that made it",
    "*class_projections/*": "what made the targets",
    "*modeling_lelp.py": "the head with S·C rows, for loading without this library",
    "*auxiliary_head.safetensors": "the layer of training alone, for resuming",
}


def covering(factors: dict[str, list[Any]]) -> list[dict[str, int]]:
    """Choose rows of values, by their places, so that every two values of two factors stand in one row (greedily)."""
    choices = {name: [(name, place) for place in range(len(values))] for name, values in factors.items()}
    pairs = (itertools.product(*two) for two in itertools.combinations(choices.values(), 2))
    left = {frozenset(pair): pair for of_two in pairs for pair in of_two}

    def filled(start: Iterable[tuple[str, int]]) -> dict[str, int]:
        row = dict(start)
        for name, of_name in choices.items():
            if name not in row:
                gain = [sum(frozenset((choice, other)) in left for other in row.items()) for choice in of_name]
                row[name] = gain.index(max(gain))
        return row

    rows = []
    while left:
        tried = [filled(start) for start in itertools.islice(left.values(), 40)]
        covered = [
            [pair for two in itertools.combinations(row.items(), 2) if (pair := frozenset(two)) in left]
            for row in tried
        ]
        best = max(range(len(tried)), key=lambda number: len(covered[number]))
        for pair in covered[best]:
            del left[pair]
        rows.append({name: tried[best][name] for name in factors})
    return rows


CASES = covering(FACTORS)


def settings_of(row: dict[str, int]) -> dict[str, Any]:
    """All settings of a case; those of the schedule win over those of the learning rate."""
    order = ["rate", *(name for name in FACTORS if name != "rate")]
    found = {key: value for name in order for key, value in FACTORS[name][row[name]].items()}
    if found.get("lr_scheduler_type") == "reduce_lr_on_plateau":
        found.pop("lr_scheduler_kwargs", None)
    if "eval_dataset" in found and found.get("eval_strategy") is not None:
        found["metric_for_best_model"] = "a_loss"  # of the first of several datasets
    return found


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A run whose data has the student's inputs and the teacher's columns."""
    data = runs.data(ROWS)
    return runs.trainer(runs.config(tmp_path_factory.mktemp("prepared")), train_dataset=data, eval_dataset=data)


def trained(kind: type[Trainer], settings: dict[str, Any], prepared: LELPTrainer, folder: Path) -> dict[str, Any]:
    """Train, evaluate, predict and save by one of the two; return what came out."""
    given = {name: value for name, value in settings.items() if name in OF_TRAINER}
    known = {item.name for item in fields(TrainingArguments)} | OF_LELP
    of_args = {name: value for name, value in settings.items() if name in known}
    usual = {"per_device_train_batch_size": BATCH, "report_to": "none", "use_cpu": True, "disable_tqdm": True}
    evaluation = prepared.eval_dataset
    given["eval_dataset"] = {"a": evaluation, "b": evaluation} if "eval_dataset" in given else evaluation
    given["callbacks"] = [callback() for callback in given.get("callbacks", ())]
    if "model_init" not in given:
        set_seed(0)
        given["model"] = runs.student()
    train = prepared.train_dataset
    if kind is Trainer:
        of_args = {name: value for name, value in of_args.items() if name not in OF_LELP}
        args: Any = TrainingArguments(output_dir=str(folder), **{**usual, **of_args})
        train = train.remove_columns(["teacher_logits", "teacher_projections"])
    else:
        args = runs.LELPConfig(output_dir=str(folder), **{**usual, **of_args, "num_subclasses": 2})
        given["projections"] = prepared.projections
    run: Any = kind(args=args, train_dataset=train, processing_class=tiny.tokenizer(), **given)
    result = run.train()
    evaluated, predicted = run.evaluate(), run.predict(prepared.eval_dataset)
    run.save_model()
    run.save_state()
    return {
        "metrics": [sorted(metrics) for metrics in (result.metrics, evaluated, predicted.metrics)],
        "log": [sorted(entry) for entry in run.state.log_history],
        "steps": [entry["step"] for entry in run.state.log_history],
        "predictions": shapes(predicted.predictions),
        "files": sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()),
        "weights": runs.weights(run.model),
    }


def shapes(values: Any) -> list[tuple[int, ...]]:
    return [np.shape(value) for value in (values if isinstance(values, list) else [values])]


@pytest.mark.parametrize("row", [*CASES, None], ids=lambda row: "".join(map(str, row.values())) if row else "slow")
def test_it_ends_as_trainer_does(row: dict[str, int] | None, prepared: LELPTrainer, tmp_path: Path) -> None:
    settings = settings_of(CASES[0]) | SLOW if row is None else settings_of(row)
    plain = trained(Trainer, settings, prepared, tmp_path / "trainer")
    ours = trained(LELPTrainer, settings, prepared, tmp_path / "lelp")
    more = {file for file in ours["files"] if any(fnmatch.fnmatch(file, pattern) for pattern in MORE_FILES)}
    ours["files"] = [file for file in ours["files"] if file not in more]
    same_weights, weights = settings.get("alpha") == 1, (ours.pop("weights"), plain.pop("weights"))
    if settings.get("dataloader_drop_last"):  # a prediction of ours has a row for every row of the data
        plain.pop("predictions")
        found = ours.pop("predictions")
        assert settings.get("prediction_loss_only") or sum(shape[0] for shape in found) == ROWS
    assert ours == plain
    assert more
    if same_weights:
        runs.assert_same(*weights, tolerance=1e-5)


def test_every_two_values_meet() -> None:
    met: set[tuple[tuple[str, int], ...]] = set()
    for row in CASES:
        met |= {*itertools.combinations(row.items(), 2)}
    for one, other in itertools.combinations(FACTORS, 2):
        for places in itertools.product(range(len(FACTORS[one])), range(len(FACTORS[other]))):
            assert ((one, places[0]), (other, places[1])) in met


def _set() -> Iterator[str]:
    for value in itertools.chain(*FACTORS.values(), [SLOW]):
        yield from value


def test_every_field_is_run_or_has_a_reason() -> None:
    left = {name for names in NOT_RUN.values() for name in names.split()}
    known = {item.name for item in fields(TrainingArguments)}
    assert known - {*_set()} - left == set()
    assert {*_set()} & left == set()
