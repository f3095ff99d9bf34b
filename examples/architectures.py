"""Distils between architectures: encoder to decoder, decoder to encoder, and to a tiny encoder, on the demo's data.

    python -m examples.architectures          # models and a decoder teacher, once
    python run_distill.py --config examples/architectures.yaml

All models start with random weights and the tokenizer of the demo's teacher. docs/understand/examples.md has the
commands and their figures.
"""

from pathlib import Path

from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BertConfig,
    GPT2Config,
    LlamaConfig,
    PreTrainedConfig,
    set_seed,
)

from examples.vader import LABELS, MAX_LENGTH, SEED, SILENT, atomically, build_demo, quiet
from hf_lelp import LELPConfig
from hf_lelp.cli.distill import DistillArguments, distill

NAMES = {"id2label": dict(enumerate(LABELS)), "label2id": {name: index for index, name in enumerate(LABELS)}}


def llama(size: int, heads: int) -> LlamaConfig:
    """Configure a Llama of two layers."""
    return LlamaConfig(
        hidden_size=size,
        intermediate_size=2 * size,
        num_hidden_layers=2,
        num_attention_heads=heads,
        max_position_embeddings=128,
        **NAMES,  # type: ignore[arg-type]
    )


def configurations() -> dict[str, PreTrainedConfig]:
    """Configure the students, and the decoder that becomes a teacher, by folder."""
    tiny = {"num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64, "max_position_embeddings": 128}
    return {
        "llama": llama(128, heads=2),
        "gpt2": GPT2Config(n_embd=128, n_layer=2, n_head=2, n_positions=128, **NAMES),  # type: ignore[arg-type]
        "tiny_bert": BertConfig(hidden_size=32, **tiny, **NAMES),  # type: ignore[arg-type]
        "untrained_llama_teacher": llama(256, heads=4),
    }


def make(config: PreTrainedConfig, teacher: Path, folder: Path) -> int:
    """Save a model with random, seeded weights and the teacher's tokenizer; return its number of parameters."""
    tokenizer = AutoTokenizer.from_pretrained(teacher)
    config.vocab_size, config.pad_token_id = len(tokenizer), tokenizer.pad_token_id
    config.bos_token_id, config.eos_token_id = tokenizer.cls_token_id, tokenizer.sep_token_id
    set_seed(SEED)
    model = AutoModelForSequenceClassification.from_config(config)
    with atomically(folder) as unfinished:
        model.save_pretrained(unfinished)
        tokenizer.save_pretrained(unfinished)
    return int(model.num_parameters())


def train_decoder(cache: Path) -> float:
    """Train the decoder teacher on labels alone (method direct); return its test accuracy."""
    arguments = DistillArguments(
        student_model=str(cache / "untrained_llama_teacher"),
        method=["direct"],
        train_file=str(cache / "train.parquet"),
        eval_file=str(cache / "test.parquet"),
    )
    with atomically(cache / "llama_teacher") as unfinished:
        config = LELPConfig(
            output_dir=str(unfinished),
            num_train_epochs=2,
            per_device_train_batch_size=32,
            learning_rate=5e-4,
            warmup_steps=0.1,
            train_sampling_strategy="group_by_length",
            max_length=MAX_LENGTH,
            seed=SEED,
            **SILENT,
        )
        return float(distill(arguments, config)["results"]["direct"]["accuracy"])


@quiet()
def build() -> Path:
    """Make what is missing and return the demo's folder."""
    cache = build_demo()
    for name, config in configurations().items():
        if not (cache / name).exists():
            print(f"{name}: {make(config, cache / 'teacher', cache / name):,} parameters, untrained")
    if not (cache / "llama_teacher").exists():
        print(f"llama_teacher: test accuracy {train_decoder(cache):.3f}")
    return cache


if __name__ == "__main__":
    print(f"models: {build()}")
