"""Fits per-class linear projections of teacher embeddings, once per teacher and dataset (arXiv 2409.20449).

Stores what is slow to compute: class means and leading principal directions, in order of variance. Rotation and scale
are a small (C, S, S) matrix, which `rotation` makes when a student is trained. So S, the rotation's seed and the
temperatures can change without touching the data.
"""

import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
import xxhash
from datasets import Dataset, IterableDataset, are_progress_bars_disabled
from huggingface_hub import ModelCard, ModelHubMixin, hf_hub_download
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from hf_lelp.classifiers import LinearHead
from hf_lelp.data.checks import as_array, check_directions, check_finite, check_mark, check_type, require_columns
from hf_lelp.data.columns import EMBEDDING_COLUMN, LOGITS_COLUMN, PROJECTIONS_COLUMN, PROJECTIONS_MARK, TEACHER_MARK
from hf_lelp.data.labels import NO_LABEL, Classes
from hf_lelp.data.rows import check_batched, column_names, mapped_anew, split_rows
from hf_lelp.markdown import escape, template
from hf_lelp.projections.principal_directions import Moments, orthonormal, principal_directions, row_space
from hf_lelp.storage.files import new_files, read_json, write_atomically, write_json
from hf_lelp.storage.progress import stage

WEIGHTS_NAME = "class_projections.safetensors"
METADATA_NAME = "config.json"
CARD_NAME = "README.md"
FORMAT_VERSION = 1
PART_BATCHES = 16  # of a file's rows that a fit maps at a time


@dataclass(repr=False)
class ClassProjections(
    ModelHubMixin, library_name="hf-lelp", tags=["lelp", "distillation"], repo_url="https://arxiv.org/abs/2409.20449"
):
    """The fitted means and directions of every class; callable in `dataset.map(..., batched=True)`.

    Attributes:
        mean: μ, (C, D), float32: mean embedding of each class.
        directions: V, (C, K, D), float32: orthonormal principal directions of each class, by falling variance.
        variance: (C, K), float32: variance of the class's examples along each direction.
        count: (C,), int64: examples of each class that the fit saw.
        null_space: whether the directions were kept out of the row space of the teacher's final layer.
        teacher: fingerprint of the teacher that made the embeddings.
        total_variance: (C,), float32: variance of the class's examples in all D dimensions, before the null space is
            taken; `None` in artefacts of earlier versions. The fingerprint leaves it out, so that keys stay.
    """

    mean: torch.Tensor
    directions: torch.Tensor
    variance: torch.Tensor
    count: torch.Tensor
    null_space: bool
    teacher: str
    total_variance: torch.Tensor | None = None

    def __post_init__(self) -> None:
        num_classes, num_directions, size = self.directions.shape
        shapes = {"mean": (num_classes, size), "variance": (num_classes, num_directions), "count": (num_classes,)}
        for name, tensor in self._tensors().items():
            if tensor.dtype != (torch.int64 if name == "count" else torch.float32):
                raise ValueError(f"{name} is of the type {tensor.dtype}: these class projections are damaged.")
        if self.total_variance is not None:
            shapes["total_variance"] = (num_classes,)
        for name, shape in shapes.items():
            if getattr(self, name).shape != shape:
                raise ValueError(
                    f"{name} has shape {tuple(getattr(self, name).shape)} where directions of shape"
                    f" {tuple(self.directions.shape)} go with {shape}: these class projections are damaged."
                )

    def __repr__(self) -> str:
        num_classes, num_directions, size = self.directions.shape
        return (
            f"ClassProjections(classes={num_classes}, directions={num_directions}, embedding={size},"
            f" count={self.count.tolist()}, null_space={self.null_space}, teacher={self.teacher!r})"
        )

    @classmethod
    def fit(
        cls,
        dataset: Dataset | IterableDataset,
        head: LinearHead,
        num_directions: int = 8,
        *,
        at_least: int | None = None,
        null_space: bool = True,
        label_column: str | None = None,
        batch_size: int = 4096,
        reduce: Callable[[list[Moments]], list[Moments]] | None = None,
        first_row: int = 0,
    ) -> Self:
        """Fit in one pass over the columns that the teacher added.

        It computes in float64, and its memory does not grow with the number of rows.

        An example belongs to the class of its label. Where it has none (no label column, or −100, −1 or null), its
        class is the teacher's argmax.

        Args:
            dataset: with columns `teacher_embedding` and `teacher_logits`; a stream is read once.
            head: the teacher's final layer.
            num_directions: K, the most subclasses per class that a student can have later.
            at_least: how many will do where the embeddings of a class span fewer than K. K is then what they span, for
                every class. `None` takes no fewer than K.
            null_space: project embeddings onto the null space of W first (step 1 of the fit).
            label_column: integer labels in the teacher's class order; `None` takes "labels" or "label" if present.
            batch_size: rows read at a time.
            reduce: for several processes that each read a part of the rows. It takes this process's moments of each
                class, and returns those of all processes together (`Moments.merge`).
            first_row: number of the first row, for messages.

        Raises:
            ValueError: if columns are missing or another teacher's, a label is no class, an embedding is not finite
                (the row is named), a class is empty, or its embeddings span too few directions (its count and rank
                are named).
        """
        present = column_names(dataset)
        require_columns(present, EMBEDDING_COLUMN, LOGITS_COLUMN)
        if isinstance(dataset, Dataset):
            check_type(dataset, EMBEDDING_COLUMN, 1)
        if label_column is None:
            label_column = next((name for name in ("labels", "label") if name in present), None)
        num_classes, size = head.weight.shape
        moments = [Moments(size) for _ in range(num_classes)]
        encoder = Classes(num_classes, names=None, teacher_order=None)
        columns = [EMBEDDING_COLUMN, LOGITS_COLUMN, *([label_column] if label_column else [])]
        columns += [TEACHER_MARK] if TEACHER_MARK in present else []
        rows = first_row
        total = len(dataset) if isinstance(dataset, Dataset) else None
        with stage("Fitting class projections", total, quiet=are_progress_bars_disabled()) as progress:
            for batch in _batches(dataset.select_columns(columns), batch_size):
                if TEACHER_MARK in batch:
                    check_mark(set(batch[TEACHER_MARK]), head.fingerprint, "teacher")
                embedding = as_array(batch[EMBEDDING_COLUMN], EMBEDDING_COLUMN, 1, rows)
                _check_embedding(embedding, size, first_row=rows)
                classes = np.asarray(batch[LOGITS_COLUMN]).argmax(-1)
                if label_column:
                    labels = np.asarray(encoder.encode(batch[label_column]))
                    classes = np.where(labels == NO_LABEL, classes, labels)
                for index, statistics in enumerate(moments):
                    statistics.add(embedding[classes == index])
                rows += len(embedding)
                progress(len(embedding))
        if reduce is not None:
            moments = reduce(moments)

        basis = row_space(head.weight) if null_space else np.zeros((size, 0))
        fitted = [principal_directions(m, basis, num_directions, index, at_least) for index, m in enumerate(moments)]
        fewest = min(len(variance) for _, variance in fitted)
        fitted = [(directions[:fewest], variance[:fewest]) for directions, variance in fitted]
        return cls(
            mean=torch.from_numpy(np.stack([m.mean for m in moments])).float(),
            directions=torch.from_numpy(np.stack([directions for directions, _ in fitted])).float(),
            variance=torch.from_numpy(np.stack([variance for _, variance in fitted])).float(),
            count=torch.tensor([m.count for m in moments]),
            null_space=null_space,
            teacher=head.fingerprint,
            total_variance=torch.tensor([np.trace(m.scatter) / m.count for m in moments]).float(),
        )

    def __call__(self, batch: Mapping[str, Any]) -> dict[str, Any]:
        """Project a batch of embeddings on every class's directions.

        Every example is projected for every class, its own and the others.

        Args:
            batch: with `teacher_embedding`, (n, D).

        Returns:
            `teacher_projections`, (n, C, K): (h − μ_c)·V_{c,k}, neither rotated nor scaled; and
            `projections_fingerprint`, n copies of that of these projections.

        Raises:
            ValueError: if the embeddings come from another teacher than those of the fit, or it is one row.
        """
        check_batched(batch, EMBEDDING_COLUMN, "projections")
        if TEACHER_MARK in batch:
            check_mark(set(batch[TEACHER_MARK]), self.teacher, "teacher")
        embedding = torch.as_tensor(np.asarray(batch[EMBEDDING_COLUMN], dtype=np.float32))
        if embedding.shape[-1] != self.mean.shape[-1]:
            raise ValueError(
                f"The embeddings have {embedding.shape[-1]} dimensions and these projections were fitted on"
                f" {self.mean.shape[-1]}: they belong to another teacher. Fit new ones."
            )
        # h·V − μ·V would lose precision where the mean is large compared with the spread.
        centred = embedding[:, None, :] - self.mean
        projected = torch.einsum("ncd,ckd->nck", centred, self.directions).numpy()
        return {PROJECTIONS_COLUMN: projected, PROJECTIONS_MARK: [self.fingerprint] * len(projected)}

    @property
    def fingerprint(self) -> str:
        """Hash of the contents."""
        digest = xxhash.xxh3_128(f"{self.teacher} {self.null_space}".encode())
        for tensor in self._tensors().values():
            digest.update(tensor.numpy().tobytes())
        return digest.hexdigest()

    @property
    def num_classes(self) -> int:
        """The number of classes, C."""
        return self.directions.shape[0]

    @property
    def num_directions(self) -> int:
        """K, the most subclasses per class that a student can have."""
        return self.directions.shape[1]

    def rotation(
        self,
        num_subclasses: int,
        *,
        random_rotation: bool = True,
        scale: bool = True,
        whitening: float = 0.0,
        seed: int = 0,
    ) -> torch.Tensor:
        """Return the matrix R that turns raw projections into scores: u_c = raw_c[:S] R_c, R_c = Q_c / scale_c.

        Q_c is orthonormal and Haar-distributed (step 3 of the fit). scale_c is the root mean variance of the S
        projections (step 4), which a rotation does not change. Whitening, which is not in the paper, first divides each
        projection by its standard deviation to the power γ.

        Args:
            num_subclasses: S ≤ K.
            random_rotation: false leaves Q_c the identity.
            scale: false leaves scale_c at 1.
            whitening: γ; at 0 the projections keep their ratios, at 1 all have the same variance.
            seed: of the rotations.

        Returns:
            (C, S, S), float32.

        Raises:
            ValueError: if S exceeds the stored directions.
        """
        check_directions(self.num_directions, num_subclasses)
        matrices = np.tile(np.eye(num_subclasses), (self.num_classes, 1, 1))
        if random_rotation and num_subclasses > 1:
            for index in range(self.num_classes):
                # Drawn as by scipy.stats.ortho_group, which takes a second to import.
                normal = np.random.default_rng([seed, index]).normal(size=(num_subclasses, num_subclasses))
                matrices[index] = orthonormal(normal)
        variance = self.variance[:, :num_subclasses].double().numpy()
        matrices /= variance[:, :, None] ** (whitening / 2)
        if scale:
            matrices /= np.sqrt((variance ** (1 - whitening)).mean(-1))[:, None, None]
        return torch.from_numpy(matrices).float()

    def variance_share(self, num_directions: int) -> torch.Tensor | None:
        """Return the share of each class's variance along its leading directions, (C,); `None` if it is not known.

        Args:
            num_directions: how many of them.
        """
        if self.total_variance is None:
            return None
        held = self.variance[:, :num_directions].sum(-1)
        return (held / self.total_variance.clamp(min=torch.finfo(torch.float32).tiny)).clamp(max=1.0)

    def _tensors(self) -> dict[str, torch.Tensor]:
        names = ("mean", "directions", "variance", "count")
        return {name: getattr(self, name).contiguous() for name in names}

    def generate_model_card(self, *args: Any, **kwargs: Any) -> ModelCard:
        """Return the README.md that `save_pretrained` and `push_to_hub` write."""
        return ModelCard.from_template(
            self._hub_mixin_info.model_card_data,
            template_str=template("projections_card.md"),
            classes=self.num_classes,
            directions=self.num_directions,
            size=self.mean.shape[-1],
            count=", ".join(f"{count:,}" for count in self.count.tolist()),
            null_space="yes" if self.null_space else "no",
            teacher=escape(self.teacher),
            fingerprint=self.fingerprint,
        )

    def save_pretrained(self, save_directory: str | Path, **kwargs: Any) -> str | None:
        """Save to a folder, whole or not at all; arguments as in `ModelHubMixin`. An existing card stays."""
        folder = Path(save_directory)
        with new_files(folder, last=METADATA_NAME) as temporary:
            if (folder / CARD_NAME).exists():
                shutil.copy(folder / CARD_NAME, temporary)
            return super().save_pretrained(temporary, **{"repo_id": folder.name, **kwargs})

    def _save_pretrained(self, save_directory: Path) -> None:
        metadata = {
            "format_version": FORMAT_VERSION,
            "teacher": self.teacher,
            "null_space": self.null_space,
            "fingerprint": self.fingerprint,
        }
        if self.total_variance is not None:  # here, and not with the tensors: earlier versions read these files too
            metadata["total_variance"] = self.total_variance.tolist()
        write_atomically(save_directory / WEIGHTS_NAME, lambda path: save_file(self._tensors(), path))
        write_json(save_directory / METADATA_NAME, metadata)

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | Path, **kwargs: Any) -> Self:
        """Load from a folder or the Hub; further arguments (revision, token, …) as in `ModelHubMixin`.

        Raises:
            FileNotFoundError: if a file is missing.
            ValueError: if a file is damaged, or of another version.
        """
        try:
            return super().from_pretrained(pretrained_model_name_or_path, **kwargs)
        except FileNotFoundError as error:
            raise FileNotFoundError(f"No class projections in {pretrained_model_name_or_path}: {error}") from error
        except (AttributeError, KeyError, TypeError, ValueError, RecursionError, SafetensorError) as error:
            raise ValueError(
                f"The class projections in {pretrained_model_name_or_path} cannot be read"
                f" ({type(error).__name__}: {error}). Fit and save them again."
            ) from error

    @classmethod
    def _from_pretrained(cls, *, model_id: str, **kwargs: Any) -> Self:
        def file(name: str) -> Path:
            local = Path(model_id) / name
            if Path(model_id).is_dir():
                return local
            hub = ("revision", "cache_dir", "force_download", "local_files_only", "token")
            return Path(hf_hub_download(model_id, name, **{key: kwargs[key] for key in hub if key in kwargs}))

        metadata = read_json(file(METADATA_NAME))
        if metadata["format_version"] != FORMAT_VERSION:
            raise ValueError(
                f"they are of format {metadata['format_version']!r}, and this version of hf-lelp reads {FORMAT_VERSION}"
            )
        total = metadata.get("total_variance")
        loaded = cls(
            **load_file(file(WEIGHTS_NAME)),
            null_space=metadata["null_space"],
            teacher=metadata["teacher"],
            total_variance=None if total is None else torch.tensor(total, dtype=torch.float32),
        )
        # The first files had only these three entries.
        further = metadata.keys() - {"format_version", "teacher", "null_space", "total_variance"}
        if further and metadata.get("fingerprint") != loaded.fingerprint:
            raise ValueError(f"{WEIGHTS_NAME} and {METADATA_NAME} do not belong together, or one of them has changed")
        return loaded


def _batches(dataset: Dataset | IterableDataset, batch_size: int) -> Iterator[dict[str, Any]]:
    """Yield batches of arrays; only a few of them are mapped from the files at a time."""
    parts: Iterable[Dataset | IterableDataset] = [dataset]
    if isinstance(dataset, Dataset):
        parts = map(mapped_anew, split_rows(dataset, PART_BATCHES * batch_size))
    for part in parts:
        yield from part.with_format("numpy").iter(batch_size)


def _check_embedding(embedding: NDArray[np.floating], size: int, first_row: int) -> None:
    if embedding.shape[1] != size:
        raise ValueError(
            f"The column {EMBEDDING_COLUMN} has shape {embedding.shape[1:]} per row and the teacher's final layer reads"
            f" {size} dimensions: the columns are another teacher's. Run this teacher over the dataset."
        )
    check_finite(embedding, EMBEDDING_COLUMN, first_row)
