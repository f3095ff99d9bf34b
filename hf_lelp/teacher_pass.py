"""Runs the teacher alone, in shares on machines that have no folder in common: `python -m hf_lelp.teacher_pass`.

It takes the options of run_distill.py, so one YAML file serves both. On machine i of n:

    python -m hf_lelp.teacher_pass --config run.yaml --share i/n --columns_cache_dir share

Then gather the folders of all machines in one place. Merge them into the cache that the run itself reads:

    python -m hf_lelp.teacher_pass --config run.yaml --merge share1 share2 …
    python run_distill.py --config run.yaml
"""

import logging
import math
import re
import sys
from dataclasses import dataclass, field

from datasets import Dataset

from hf_lelp.cli.data import expand, load_data
from hf_lelp.cli.distill import DistillArguments
from hf_lelp.cli.options import Program
from hf_lelp.config import LELPConfig, as_list
from hf_lelp.teacher.class_order import load_aligned_teacher
from hf_lelp.teacher.columns import merge_shares, run_teacher, shard_rows
from hf_lelp.training.sampled_fit import fitted_rows
from hf_lelp.training.targets import make_targets

logger = logging.getLogger(__name__)


@dataclass
class PassArguments(DistillArguments):
    """The arguments of run_distill.py, and which part of the pass to run.

    Raises:
        ValueError: if `share` is not i/n, if it is given with folders to merge, or if no teacher is named.
    """

    share: str = field(
        default="1/1", metadata={"help": "Which share of the rows to run the teacher over: i/n, with i from 1 to n."}
    )
    merge: list[str] | None = field(
        default=None, metadata={"help": "Instead: folders of shares to put together in columns_cache_dir."}
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        found = re.fullmatch(r"([0-9]+)/([0-9]+)", self.share)
        if found is None or not 1 <= int(found[1]) <= int(found[2]):
            raise ValueError(f"share={self.share}: i/n is needed, with i from 1 to n.")
        if self.merge is not None and self.share != "1/1":
            raise ValueError("Either run a share or merge shares: give share or merge.")
        if not self.teacher_model:
            raise ValueError("teacher_model is missing: a Hub id or folder of a fine-tuned classifier.")


def run_share(arguments: PassArguments, config: LELPConfig) -> None:
    """Run the teacher over a share of the training and of the evaluation rows, or merge shares.

    Args:
        arguments: data, teacher, and the share or the folders to merge.
        config: the run's own settings; `columns_cache_dir` is where the columns go.

    Raises:
        ValueError: if `alpha` is 1, `fit_rows` is given with shares, or a share would be empty; see also
            `merge_shares`, `teacher_columns` and `load_aligned_teacher`.
    """
    if config.alpha == 1:
        raise ValueError("alpha=1 leaves nothing to distil: no teacher is run.")
    train, evaluation = load_data(arguments, config.seed)
    count = int(arguments.share.split("/")[1])
    most = max(math.ceil(len(dataset) / shard_rows(len(dataset))) for dataset in (train, evaluation))
    if count > most:
        raise ValueError(
            f"share={arguments.share}: {len(train):,} training and {len(evaluation):,} evaluation rows fill {most}"
            f" shards at most, so that a share would be empty. Take {most} shares or fewer."
        )
    if arguments.unlabelled_file is not None or config.windows > 1 or config.views:
        logger.warning(
            "Windows, views and unlabelled rows are not part of this pass: the run that trains a student makes them,"
            " and runs the teacher over them."
        )
    for name in as_list(arguments.teacher_model):  # of several, each one's columns are kept by themselves
        _run_share_of(expand(name), arguments, config, train, evaluation)


def _run_share_of(name: str, arguments: PassArguments, config: LELPConfig, train: Dataset, evaluation: Dataset) -> None:
    """Run one teacher over a share of the rows, or merge its shares."""
    teacher, classes = load_aligned_teacher(name, None, config, train, None, [evaluation])
    assert teacher is not None
    if fitted_rows(len(train), config.fit_rows) is not None:
        if arguments.merge is not None or arguments.share != "1/1":
            raise ValueError(
                "fit_rows fits on a sample before the pass over all rows, and shares know nothing of each other. Run it"
                " whole, with accelerate launch for several processes; or leave fit_rows out."
            )
        make_targets(train, teacher, config, classes)
        run_teacher(evaluation, teacher, config.columns_cache_dir, dtype=config.columns_dtype)
        return
    if arguments.merge is not None:
        merge_shares([train, evaluation], teacher, arguments.merge, config.columns_cache_dir, config.columns_dtype)
        return
    number, count = map(int, arguments.share.split("/"))
    for dataset in (train, evaluation):
        run_teacher(dataset, teacher, config.columns_cache_dir, dtype=config.columns_dtype, share=(number - 1, count))


PROGRAM = Program(
    run_share,
    (PassArguments, LELPConfig),
    "Run a teacher over a share of the rows, or merge such shares.",
)

if __name__ == "__main__":
    PROGRAM.main(sys.argv[1:], "python -m hf_lelp.teacher_pass")
