"""From raw projections to the scores of pseudo-subclasses, on the device (arXiv 2409.20449, section 3)."""

from typing import Any

import torch

from hf_lelp.config import LELPConfig
from hf_lelp.data.columns import PROJECTIONS_COLUMN
from hf_lelp.projections.class_projections import ClassProjections


class SubclassScores:
    """u, the scores of every class's pseudo-subclasses: raw projections on S directions, scaled and rotated.

    Follows changes of `args`, as a search over settings makes them; the rotation is drawn once for each.

    Args:
        args: S, and whether and with which seed to rotate and to scale.
        projections: that made the column; `None` if they are not known.
    """

    def __init__(self, args: LELPConfig, projections: ClassProjections | None) -> None:
        self.args = args
        self.projections = projections
        self._drawn: tuple[dict[str, Any], torch.Tensor] | None = None

    def settings(self) -> dict[str, Any]:
        """What makes the pseudo-subclasses of the projections: the arguments of `ClassProjections.rotation`."""
        args = self.args
        return {
            "num_subclasses": args.num_subclasses,
            "random_rotation": args.random_rotation,
            "scale": args.scale_projections,
            "whitening": args.whitening or 0.0,
            "seed": args.seed_of_rotations,
        }

    def __call__(self, column: torch.Tensor) -> torch.Tensor:
        """The scores of a batch.

        Args:
            column: `teacher_projections`, (N, C, K).

        Returns:
            (N, C, S), float32.

        Raises:
            ValueError: if the projections that made the column are not known, or are of another shape.
        """
        args, settings = self.args, self.settings()
        used = column[..., : int(args.num_subclasses)].float()
        if self.projections is None and not any((args.random_rotation, args.scale_projections, args.whitening)):
            return used
        drawn_for = {**settings, "device": column.device}
        if self._drawn is None or self._drawn[0] != drawn_for:
            self._drawn = (drawn_for, self._rotation(column).to(column.device))
        return torch.einsum("nck,cks->ncs", used, self._drawn[1])

    def _rotation(self, column: torch.Tensor) -> torch.Tensor:
        if self.projections is None:
            raise ValueError(
                f"The data has {PROJECTIONS_COLUMN}, and the projections that made them are needed for their rotation"
                " and scale: pass projections=ClassProjections.from_pretrained(...). Scores that are to be taken as"
                " they are need random_rotation=False, scale_projections=False and whitening=0."
            )
        size = (self.projections.num_classes, self.projections.num_directions)
        if tuple(column.shape[1:]) != size:
            raise ValueError(
                f"{PROJECTIONS_COLUMN} has shape {tuple(column.shape[1:])} per row, and these projections give {size}:"
                " they are not the ones that made the column."
            )
        return self.projections.rotation(**self.settings())
