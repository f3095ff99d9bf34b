"""Computes the losses that LELP is compared with, as pure functions of tensors.

Each follows its paper's equations, and its docstring says where it departs from them. N examples, C classes, D
embedding size; z logits, h embeddings; S and T mark student and teacher. Losses are per example, (N,), in float32 or
better. Where a loss compares examples with one another, an example's share is the mean over its pairs. So `.mean()` is
the mean over all pairs, and depends on how a batch is cut into pieces. (DIST and Procrustes have no pairs: `.mean()` is
the paper's number.)

FitNet (Romero et al. 2014, arXiv 1412.6550) needs no loss of its own. Its hint is the teacher's last embedding, so it
is `embedding_mse` alone first, and plain distillation after that.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hf_lelp.losses import widen


def logit_regression(student_logits: Tensor, teacher_logits: Tensor) -> Tensor:
    """Logit matching: mean_c (z^S − z^T)².

    Ba & Caruana 2014 (arXiv 1312.6184); Kim et al. 2021 (arXiv 2105.08919). They sum over classes, the first with a
    factor ½; the mean here keeps the loss's size when C changes. As in both papers, logits are not centred over
    classes: on centred logits the loss is the limit of plain distillation at high temperatures, no method of its own.

    Args:
        student_logits: (N, C).
        teacher_logits: (N, C).
    """
    return (widen(student_logits) - widen(teacher_logits)).square().mean(-1)


def annealed_logit_regression(student_logits: Tensor, teacher_logits: Tensor, progress: float, steps: int) -> Tensor:
    """Annealing-KD, stage 1: mean_c (z^S − Φ(T) z^T)², Φ(T) = 1 − (T − 1) / τ_max, T falling from τ_max to 1.

    Jafari et al. 2021 (arXiv 2104.07163). T takes whole numbers, each for an equal share of the stage. They sum over
    classes, see `logit_regression`. Stage 2, cross-entropy on the labels alone, is the caller's task.

    Args:
        student_logits: (N, C).
        teacher_logits: (N, C).
        progress: share of the stage that is over, from 0 to 1.
        steps: τ_max, the number of temperatures (10 in the paper's image experiments).

    Raises:
        ValueError: if `progress` is outside of 0 to 1.
    """
    if not 0 <= progress <= 1:
        raise ValueError(f"progress={progress}: it is the share of the stage that is over, from 0 to 1.")
    temperature = max(steps - math.floor(progress * steps), 1)
    return logit_regression(student_logits, widen(teacher_logits) * (1 - (temperature - 1) / steps))


def dkd_loss(
    student_logits: Tensor,
    teacher_logits: Tensor,
    target: Tensor,
    temperature: float = 4.0,
    alpha: float = 1.0,
    beta: float = 8.0,
) -> Tensor:
    """Decoupled KD: τ² (α · KL(b^T ‖ b^S) + β · KL(p̂^T ‖ p̂^S)).

    Zhao et al. 2022 (arXiv 2203.08679). b: target class against all others; p̂: the others among themselves. Plain
    distillation is the first divergence plus (1 − p^T_target) times the second. With two classes the second is 0, and
    this loss is α times plain distillation. Defaults are the paper's for CIFAR-100.

    Args:
        student_logits: (N, C).
        teacher_logits: (N, C).
        target: (N,), int64: the label; a negative one (none) stands for the teacher's argmax.
        temperature: τ > 0.
        alpha: weight of the target part.
        beta: weight of the part without the target.
    """
    student, teacher = (widen(logits).div(temperature).log_softmax(-1) for logits in (student_logits, teacher_logits))
    target = torch.where(target < 0, teacher.argmax(-1), target).unsqueeze(-1)
    others = torch.arange(teacher.shape[-1] - 1, device=target.device)
    others = others + (others >= target)  # (N, C − 1): every class but the target

    def split(log_p: Tensor) -> tuple[Tensor, Tensor]:
        log_rest = log_p.gather(-1, others)
        binary = torch.cat([log_p.gather(-1, target), log_rest.logsumexp(-1, keepdim=True)], dim=-1)
        return binary, log_rest.log_softmax(-1)

    (student_binary, student_rest), (teacher_binary, teacher_rest) = split(student), split(teacher)
    target_part = _divergence(teacher_binary, student_binary)
    return temperature**2 * (alpha * target_part + beta * _divergence(teacher_rest, student_rest))


def embedding_mse(predicted: Tensor, teacher_embedding: Tensor) -> Tensor:
    """Embedding distillation: mean_d (ĥ − h^T)².

    If every dimension of the embeddings is standardised (the caller's task), predicting their mean has loss 1.

    Args:
        predicted: ĥ, (N, D): the student's embedding after a learned linear map.
        teacher_embedding: (N, D).
    """
    return (widen(predicted) - widen(teacher_embedding)).square().mean(-1)


class GaussianRegressor(nn.Module):
    """The variational distribution of `vid_loss`: a linear mean, and a variance per dimension that starts at 1.

    `vid_loss(regressor(student_embedding), regressor.raw_variance, teacher_embedding)`. It exists in training only.

    Args:
        in_features: size of the student's embedding.
        out_features: D.
    """

    def __init__(self, in_features: int, out_features: int) -> None:
        super().__init__()
        self.mean = nn.Linear(in_features, out_features)
        self.raw_variance = nn.Parameter(torch.full((out_features,), math.log(math.e - 1)))  # softplus of it is 1

    def forward(self, embedding: Tensor) -> Tensor:
        """Map (N, in_features) to the mean, (N, D)."""
        mean: Tensor = self.mean(embedding)
        return mean


def vid_loss(predicted_mean: Tensor, raw_variance: Tensor, teacher_embedding: Tensor) -> Tensor:
    """Variational information distillation: mean_d ½ (log σ² + (h^T − μ)² / σ²), σ² = softplus(a) + 10⁻⁵.

    Ahn et al. 2019 (arXiv 1904.05835): the negative log likelihood of a Gaussian, less the constant ½ log 2π. Its
    variance is learned, one per dimension and the same for all examples. They sum over dimensions; the mean here keeps
    the loss's size when D changes. Their mean is a small network; here the caller chooses it.

    Args:
        predicted_mean: μ, (N, D), from the student's embedding.
        raw_variance: a, (D,).
        teacher_embedding: (N, D).
    """
    variance = F.softplus(widen(raw_variance)) + 1e-5
    error = (widen(teacher_embedding) - widen(predicted_mean)).square()
    return 0.5 * (variance.log() + error / variance).mean(-1)


def rkd_loss(
    student_embedding: Tensor, teacher_embedding: Tensor, distance_weight: float = 25.0, angle_weight: float = 50.0
) -> Tensor:
    """Relational KD: Huber losses between the batch's distances, and between its angles, in student and teacher.

    Park et al. 2019 (arXiv 1904.05068). Distances ‖h_i − h_j‖ are divided by their mean over the batch; angles are
    cos ∠ i j k at the vertex j. Nothing is projected: the sizes of the embeddings may differ. An example's share is the
    mean over its distances plus the mean over the angles at it. A batch of one or two has no relations, and loss 0. The
    paper sums over pairs and triplets. Memory is N² · max(N, D).

    Args:
        student_embedding: (N, D of the student).
        teacher_embedding: (N, D).
        distance_weight: of the distances.
        angle_weight: of the angles.
    """
    (student_distance, student_angle), (teacher_distance, teacher_angle) = (
        _relations(widen(embedding)) for embedding in (student_embedding, teacher_embedding)
    )
    count = len(student_embedding)
    distances = F.smooth_l1_loss(student_distance, teacher_distance, reduction="none").sum(-1) / max(count - 1, 1)
    # A direction's angle with itself carries no information, and would differ if only one side has equal rows.
    distinct = ~torch.eye(count, dtype=torch.bool, device=student_angle.device)
    angles = (F.smooth_l1_loss(student_angle, teacher_angle, reduction="none") * distinct).sum((-1, -2))
    return distance_weight * distances + angle_weight * angles / max((count - 1) * (count - 2), 1)


def crd_loss(student_features: Tensor, teacher_features: Tensor, temperature: float = 0.07) -> Tensor:
    """Contrastive representation distillation: each student embedding must pick out its own teacher's, and vice versa.

    Tian et al. 2019 (arXiv 1910.10699). There are two departures. Negatives are the other examples of the batch,
    whatever their class; the paper draws thousands of another class from a memory bank. The loss is the softmax form of
    noise-contrastive estimation (InfoNCE), which needs no estimate of a normalising constant. As in the paper, both
    directions are added up. A batch of one has loss 0.

    Args:
        student_features: (N, F), projected; normalised here.
        teacher_features: (N, F), projected; normalised here.
        temperature: of the cosine similarities.
    """
    student, teacher = _unit(widen(student_features)), _unit(widen(teacher_features))
    similarity = student @ teacher.mT / temperature
    return -(similarity.log_softmax(-1).diagonal() + similarity.log_softmax(0).diagonal())


def comparative_loss(student_logits: Tensor, teacher_logits: Tensor, temperature: float = 4.0) -> Tensor:
    """Comparative KD: mean_{j ≠ i} τ² · KL(softmax((z^T_i − z^T_j) / τ) ‖ softmax((z^S_i − z^S_j) / τ)).

    Wilf et al. 2023 (arXiv 2311.02253), in its form on logits, for single examples. It takes every ordered pair of the
    batch; they sample pairs of the data set, and also compare the means of small groups. They add a second such term
    with differences of one-hot labels in place of the teacher's. A batch of one has loss 0.

    Args:
        student_logits: (N, C).
        teacher_logits: (N, C).
        temperature: τ > 0.
    """
    student, teacher = (widen(logits).div(temperature) for logits in (student_logits, teacher_logits))
    student, teacher = ((z.unsqueeze(1) - z).log_softmax(-1) for z in (student, teacher))
    return temperature**2 * _divergence(teacher, student).sum(-1) / max(len(student) - 1, 1)


def pkt_loss(student_embedding: Tensor, teacher_embedding: Tensor) -> Tensor:
    """Probabilistic knowledge transfer: mean_{j ≠ i} p^T_ji log(p^T_ji / p^S_ji), p_ji ∝ ½ (cos(h_i, h_j) + 1).

    Passalis & Tefas 2018, and Passalis et al. 2020 (arXiv 2005.00727), whose code adds a second kernel (Student's t),
    takes the symmetric divergence, and compares several layers. Here it is the last embedding, the cosine kernel and
    KL. Each row is normalised without the example itself. Sizes of the embeddings may differ. A batch of one or two has
    no such distribution, and loss 0.

    Args:
        student_embedding: (N, D of the student).
        teacher_embedding: (N, D).
    """
    student, teacher = (_log_neighbours(widen(embedding)) for embedding in (student_embedding, teacher_embedding))
    return _divergence(teacher, student) / max(len(student) - 1, 1)


def sp_loss(student_embedding: Tensor, teacher_embedding: Tensor) -> Tensor:
    """Similarity-preserving distillation: mean_j (g^S_ij − g^T_ij)², g_i = G_i / ‖G_i‖, G = H Hᵀ.

    Tung & Mori 2019 (arXiv 1907.09682), on the last embedding. As published, G is not centred and holds each example's
    product with itself. Sizes of the embeddings may differ.

    Args:
        student_embedding: (N, D of the student).
        teacher_embedding: (N, D).
    """
    student, teacher = (widen(embedding) for embedding in (student_embedding, teacher_embedding))
    return (_unit(_products(student, student.mT)) - _unit(_products(teacher, teacher.mT))).square().mean(-1)


def procrustes_loss(student_embedding: Tensor, teacher_embedding: Tensor) -> Tensor:
    """Squared Procrustes distance of two batches of embeddings: min_Q ‖X^S Q − X^T‖² = 2 − 2 ‖X^Sᵀ X^T‖_*.

    It is the standard one: squared, with Q any orthogonal map. Bhattarai et al. 2025 (arXiv 2509.25253) take this
    distance as a loss between hidden layers; here it is the last embedding. X is centred over the batch, and of
    Frobenius norm 1. ‖·‖_* is the sum of the singular values. The loss is 0 where one batch is a rotation of the other,
    and at most 2. It belongs to the batch, so each example has the same value. Sizes of the embeddings may differ. A
    batch of one has loss 0.

    Args:
        student_embedding: (N, D of the student).
        teacher_embedding: (N, D).
    """
    student, teacher = (_configuration(widen(embedding)) for embedding in (student_embedding, teacher_embedding))
    shared = torch.linalg.svdvals(_products(student.mT, teacher)).sum()
    return (student.square().sum() + teacher.square().sum() - 2 * shared).expand(len(student))


def dist_loss(student_logits: Tensor, teacher_logits: Tensor, temperature: float = 4.0) -> Tensor:
    """DIST's relation over the batch: τ² · mean_c (1 − ρ_c), ρ_c: correlation of the batch's probabilities of class c.

    Huang et al. 2022 (arXiv 2205.10536), who call it the intra-class relation. With a and b the two centred columns of
    length 1, 1 − ρ = ½ ‖a − b‖², of which an example's share is N/2 · (a_i − b_i)². A class that the student gives the
    same probability throughout has a = 0, and adds ½. Their inter-class relation correlates one example's
    probabilities over the classes. Of two classes that correlation is always 1 or −1, so it has no gradient; plain
    distillation stands in its place here.

    Args:
        student_logits: (N, C).
        teacher_logits: (N, C).
        temperature: τ > 0.
    """
    student, teacher = (widen(logits).div(temperature).softmax(-1) for logits in (student_logits, teacher_logits))
    student, teacher = (F.normalize(p - p.mean(0), dim=0, eps=1e-6) for p in (student, teacher))
    return temperature**2 * len(student) / 2 * (student - teacher).square().mean(-1)


def srd_loss(predicted: Tensor, teacher_logits: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Semantic representational distillation: mean_c (W ĥ + b − z^T)², cross-network logits against the teacher's.

    Yang et al. 2022 (arXiv 2205.06701). The teacher's final layer stays as it is, and judges the student's embedding.
    Only the teacher's logits are needed, so unlabelled rows serve, of other classes too. As in their code, the caller
    adds `embedding_mse`. Their map is a convolution with batch normalisation and ReLU.

    Args:
        predicted: ĥ, (N, D): the student's embedding after a learned linear map.
        teacher_logits: (N, C).
        weight: W, (C, D), of the teacher's final layer.
        bias: b, (C,).
    """
    return logit_regression(F.linear(widen(predicted), weight, bias), teacher_logits)


def _divergence(log_p: Tensor, log_q: Tensor) -> Tensor:
    """Compute KL(p ‖ q) over the last axis."""
    return (log_p.exp() * (log_p - log_q)).sum(-1)


def _relations(embedding: Tensor) -> tuple[Tensor, Tensor]:
    """Compute distances over their mean, (N, N), and cosines of the angles at the first index, (N, N, N)."""
    # Not from inner products: their rounding would give equal rows a direction.
    difference = embedding.unsqueeze(0) - embedding.unsqueeze(1)
    distance = _norm(difference)
    inverse = torch.where(distance > 0, 1 / torch.where(distance > 0, distance, 1.0), 0.0)
    direction = difference * inverse.unsqueeze(-1)  # N² · D numbers: dividing, as in `_unit`, is slower
    mean = distance.sum() / max(len(embedding) * (len(embedding) - 1), 1)
    return distance / torch.where(mean > 0, mean, 1.0), direction @ direction.mT


def _norm(vectors: Tensor) -> Tensor:
    """Compute lengths along the last axis; the gradient at a zero vector is 0."""
    squared = vectors.square().sum(-1)
    return torch.where(squared > 0, torch.where(squared > 0, squared, 1.0).sqrt(), 0.0)


def _unit(vectors: Tensor) -> Tensor:
    """Divide vectors by their lengths; a zero vector stays zero, and its gradient is 0."""
    norm = _norm(vectors).unsqueeze(-1)
    return torch.where(norm > 0, vectors / torch.where(norm > 0, norm, 1.0), 0.0)


def _products(left: Tensor, right: Tensor) -> Tensor:
    """Multiply two matrices in their own precision, under autocast too."""
    with torch.autocast(left.device.type, enabled=False):
        return left @ right


def _log_neighbours(embedding: Tensor) -> Tensor:
    """Compute log p_{j|i} of the cosine kernel, (N, N − 1): of each example's neighbours, without itself."""
    directions = _unit(embedding)
    kernel = (_products(directions, directions.mT) + 1) / 2 + 1e-6  # an opposite example would have log 0
    others = ~torch.eye(len(kernel), dtype=torch.bool, device=kernel.device)
    kernel = kernel[others].view(len(kernel), -1)
    return (kernel / kernel.sum(-1, keepdim=True)).log()


def _configuration(embedding: Tensor) -> Tensor:
    """Centre a batch of embeddings, (N, D), and divide it by its Frobenius norm."""
    centred = embedding - embedding.mean(0)
    norm = _norm(centred.flatten())
    # What is left of equal rows is rounding.
    varies = norm > 1e-6 * _norm(embedding.flatten())
    return torch.where(varies, centred / torch.where(varies, norm, 1.0), 0.0)
