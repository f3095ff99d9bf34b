"""Saves the student, its card, its projections and whole checkpoints, and resumes training from a checkpoint."""

import logging
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import nn
from transformers import PreTrainedModel, SequenceFeatureExtractor
from transformers.trainer_utils import HubStrategy
from transformers.utils import CONFIG_NAME

from hf_lelp.config import LELPConfig
from hf_lelp.data.encoding import Processor
from hf_lelp.overrides.card_facts import card_of
from hf_lelp.overrides.finite_loss import FiniteLossMixin
from hf_lelp.projections.class_projections import ClassProjections
from hf_lelp.projections.subclass_scores import SubclassScores
from hf_lelp.storage.checksums import WEIGHTS, file_states, write_checksums
from hf_lelp.storage.files import check_writable, new_files
from hf_lelp.student.card import CARD_NAME, StudentCard, with_user_facts
from hf_lelp.student.checkpoints import (
    ADAPTER_NAME,
    PROJECTIONS_FOLDER,
    STATE_NAME,
    check_checkpoint,
    check_settings,
    drop_auxiliary,
    last_checkpoint,
    load_rest,
    mend_times,
    save_for_resuming,
    whole_or_gone,
)
from hf_lelp.student.heads import AuxiliaryHead, StudentHead
from hf_lelp.student.modeling_lelp import SubclassHead
from hf_lelp.training.outside import check_pushed_folder
from hf_lelp.training.prepared_run import PreparedRun

logger = logging.getLogger(__name__)


class SavingMixin(FiniteLossMixin):
    """The part of `LELPTrainer` that writes a student and reads it again."""

    args: LELPConfig
    processing_class: Processor | None
    model: PreTrainedModel
    prepared: PreparedRun
    auto_trials: list[dict[str, Any]]
    subclass_scores: SubclassScores
    _head: StudentHead | None
    _measured: dict[int, dict[str, float]]
    _states: list[tuple[Any, dict[str, Any]]] | None = None  # of accelerate, as this trainer was made with
    _checkpoint: tuple[Path, dict[str, tuple[int, int]]] | None = None  # as it was written last

    @property
    def projections(self) -> ClassProjections | None:
        """The projections that make the targets, where known."""
        return self.prepared.projections

    def train(self, resume_from_checkpoint: str | bool | None = None, *args: Any, **kwargs: Any) -> Any:
        """As in Trainer; `True` is the last whole checkpoint in `output_dir`.

        Raises:
            ValueError: if the checkpoint is not whole, or there is none; if it does not fit this run (see
                `check_settings`); or if checkpoints are to be saved where nothing can be written.
        """
        self._restore_state()
        folder = Path(self.args.output_dir or ".")
        if self.args.should_save and self.args.save_strategy != "no":
            check_writable(folder)
        if resume_from_checkpoint is True:
            resume_from_checkpoint = last_checkpoint(folder)
            if resume_from_checkpoint is None:
                raise ValueError(f"There is no whole checkpoint in {folder} to resume from.")
        elif resume_from_checkpoint:
            check_checkpoint(Path(resume_from_checkpoint))
        if resume_from_checkpoint:
            # Check before Trainer reads the data, which with FSDP comes first, and whichever way the model is loaded.
            check_settings(resume_from_checkpoint, self._settings_to_resume())
            self._take_projections(Path(resume_from_checkpoint) / PROJECTIONS_FOLDER)
        return super().train(resume_from_checkpoint, *args, **kwargs)

    def evaluate(
        self, eval_dataset: Any = None, ignore_keys: list[str] | None = None, metric_key_prefix: str = "eval"
    ) -> dict[str, float]:
        """As in Trainer; figures on the trainer's own `eval_dataset` also go on the student's card."""
        self._restore_state()
        metrics = super().evaluate(eval_dataset, ignore_keys, metric_key_prefix)
        if eval_dataset is None:
            start = f"{metric_key_prefix}_"
            self._measured[self.state.global_step] = {
                name.removeprefix(start): value for name, value in metrics.items() if name.startswith(start)
            }
        return metrics

    def predict(self, *args: Any, **kwargs: Any) -> Any:
        """As in Trainer."""
        self._restore_state()
        return super().predict(*args, **kwargs)

    def _restore_state(self) -> None:
        """Give accelerate's global state back, where settings or a trainer that failed since have emptied it."""
        for state, kept in self._states or ():
            if not state._shared_state:
                state._shared_state.update(kept)

    def push_to_hub(self, *args: Any, **kwargs: Any) -> Any:
        """As in Trainer.

        Raises:
            ValueError: see `check_pushed_folder`.
        """
        check_pushed_folder(self.args)
        return super().push_to_hub(*args, **kwargs)

    def forget_figures(self) -> None:
        """Leave off the card what was measured in training: the student has changed since."""
        self._measured.clear()

    def _settings_to_resume(self) -> dict[str, Any]:
        """The settings that a checkpoint must be resumed with; `None` is unknown."""
        settings = self.subclass_scores.settings() if self.projections is not None else {}
        if isinstance(self._head, SubclassHead):
            settings["temperature"] = self._head.temperature
        return {"classes": self.prepared.classes.names, "teacher": self.prepared.teacher, **settings}

    def student_card(self) -> StudentCard:
        """Make the student's card as of now: its settings, and its figures if it was evaluated after the last step."""
        return card_of(
            self,
            self.args,
            projections=self.projections,
            teacher=self.prepared.teacher_name,
            signal=self.prepared.signal,
            max_length=None
            if isinstance(self.processing_class, SequenceFeatureExtractor)
            else self.prepared.max_length,
            measured=self._measured.get(self.state.global_step, {}),
            origins=self.prepared.origins,
            not_finite_at=self._not_finite_at,
        )

    def create_model_card(self, *args: Any, **kwargs: Any) -> None:
        """Write README.md in `output_dir`. Takes the arguments of Trainer and `push_to_hub`: see `with_user_facts`."""
        if self.is_world_process_zero():
            card = with_user_facts(self.student_card(), *args, **kwargs)
            card.save(Path(self.args.output_dir or ".") / CARD_NAME, replace_any=True)

    def _save_card(self, folder: Path) -> None:
        """Write the student's card beside it. The student is worth more than its card: what fails here is told."""
        try:
            self.student_card().save(folder / CARD_NAME)
        except Exception as error:  # it depends on names, settings and figures of the user's own
            logger.warning(f"No card was written to {folder} ({type(error).__name__}: {error})")

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """As in Trainer, with the student's card beside the weights; a README.md of the user's own stays."""
        super().save_model(output_dir, _internal_call)
        if not _internal_call and self.is_world_process_zero():
            self._save_card(Path(output_dir or self.args.output_dir or "."))

    def save_state(self) -> None:
        """As in Trainer, but keep only the name of the best checkpoint's folder: the state goes to the Hub."""
        best = self.state.best_model_checkpoint
        self.state.best_model_checkpoint = best and Path(best).name
        try:
            super().save_state()
        finally:
            self.state.best_model_checkpoint = best

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None) -> None:
        if not self.args.should_save:
            super()._save(output_dir, state_dict)
            return
        folder = Path(output_dir or self.args.output_dir or ".")
        with new_files(folder, last=CONFIG_NAME) as temporary:
            with self.args.shown_as_published():  # training_args.bin goes to the Hub with the student
                super()._save(str(temporary), state_dict)
            (temporary / CARD_NAME).unlink(missing_ok=True)  # PEFT writes one, with the path of its model
            if self.projections is not None:
                self.projections.save_pretrained(temporary / PROJECTIONS_FOLDER)
            if self.is_in_train:
                save_for_resuming(temporary, self._own_head(), self._settings_to_resume())
                (folder / STATE_NAME).unlink(missing_ok=True)  # of a checkpoint that this one replaces
            else:
                if isinstance(self._head, AuxiliaryHead):  # a checkpoint keeps it, because PEFT resumes only with it
                    drop_auxiliary(temporary / ADAPTER_NAME)
                write_checksums(temporary, WEIGHTS)

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        folder = Path(self._get_output_dir(trial=trial)) / f"checkpoint-{self.state.global_step}"
        if self.args.should_save:
            mend_times(folder.parent)
        with whole_or_gone(folder):
            super()._save_checkpoint(model, trial)
        self.accelerator.wait_for_everyone()  # every process saves its own random state
        if self.args.should_save:
            write_checksums(folder)
            self._checkpoint = folder, file_states(folder)

    def _maybe_log_save_evaluate(self, *args: Any, **kwargs: Any) -> None:
        super()._maybe_log_save_evaluate(*args, **kwargs)
        # A callback may change the checkpoint on purpose (on_save), for instance remove optimizer.pt.
        if self._checkpoint is not None:
            folder, states = self._checkpoint
            if folder.is_dir() and file_states(folder) != states:
                write_checksums(folder)
        self._checkpoint = None

    def _push_from_checkpoint(self, checkpoint_folder: str) -> None:
        # Trainer copies only weights and configuration, but a subclass student loads only with its modelling file.
        job: Any = self.push_in_progress
        busy = job is not None and not job.is_done() and not self.args.hub_always_push
        skipped = self.args.hub_strategy == HubStrategy.END or busy  # by Trainer
        if self.is_world_process_zero() and not skipped:
            folder = Path(self.args.output_dir or ".")
            for path in Path(checkpoint_folder).glob("*.py"):
                shutil.copy(path, folder / path.name)
            write_checksums(folder, WEIGHTS, of=Path(checkpoint_folder))
            if self.projections is not None:
                self.projections.save_pretrained(folder / PROJECTIONS_FOLDER)
            self._save_card(folder)
        with self.args.shown_as_published():
            super()._push_from_checkpoint(checkpoint_folder)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        super()._load_from_checkpoint(resume_from_checkpoint, model)
        load_rest(resume_from_checkpoint, self.accelerator.unwrap_model(self.model), self._own_head())

    def _own_head(self) -> StudentHead | None:
        """The head whose auxiliary layer this class saves; FSDP and DeepSpeed shard it, and save it with the model."""
        return None if self.is_fsdp_enabled or self.is_deepspeed_enabled else self._head

    def _take_projections(self, folder: Path) -> None:
        """Use a checkpoint's projections, not those at hand: a refit can flip a sign, and so relabel every subclass."""
        if self.projections is None or not folder.exists():
            return
        saved = ClassProjections.from_pretrained(str(folder))
        if saved.fingerprint == self.projections.fingerprint:
            return
        targets = self.prepared.targets
        if targets is None or targets.embeddings is None:
            raise ValueError(
                f"The checkpoint {folder.parent} was trained with other class projections than the training data's."
                f" Prepare the data with ClassProjections.from_pretrained({str(folder)!r}) to resume it."
            )
        logger.info(f"Class projections of {folder} replace the ones fitted now")
        self.prepared = replace(self.prepared, projections=saved)
        self.subclass_scores = SubclassScores(self.args, saved)
        self.train_dataset = targets.projected_by(saved, self.train_dataset)

    def _load_best_model(self) -> None:
        super()._load_best_model()
        if self._not_finite_at is not None and (self.state.best_global_step or 0) < self._not_finite_at:
            self._not_finite_at = None
        # The last figures are of another model.
        self._measured = {self.state.global_step: self._measured.get(self.state.best_global_step or -1, {})}
        if self.state.best_model_checkpoint is not None:
            checkpoint = self.state.best_model_checkpoint
            load_rest(checkpoint, self.accelerator.unwrap_model(self.model), self._own_head())
