"""Losses of the zero-shot baselines, on vectors of length one."""

from __future__ import annotations

import torch
from torch.nn import functional


def soft_targets(query: torch.Tensor, gallery: torch.Tensor, temperature: float, length: float) -> torch.Tensor:
    """Contrastive loss whose targets are the similarities within the modalities (paper-facts 4.1).

    Args:
        query, gallery: vectors of pairs, of length one, shape (pairs, outputs).
        temperature: similarities are divided by it, those of the targets multiplied.
        length: that all vectors are given before similarities are taken.
    """
    query, gallery = length * query, length * gallery
    logits = query @ gallery.T / temperature
    targets = ((query @ query.T + gallery @ gallery.T) / 2 * temperature).softmax(dim=1)
    both = logits.log_softmax(dim=1) + logits.log_softmax(dim=0)
    return -(targets * both).sum(dim=1).mean() / 2


def label_targets(
    query: torch.Tensor, gallery: torch.Tensor, labels: torch.Tensor, scale: torch.Tensor
) -> torch.Tensor:
    """Contrastive loss whose targets are the pairs of the same class, in equal shares (paper-facts 4.2).

    Args:
        query, gallery: vectors of pairs, shape (pairs, outputs).
        labels: class of each pair.
        scale: cosines are multiplied by it.
    """
    logits = scale * query @ gallery.T
    same = (labels[:, None] == labels[None, :]).to(logits.dtype)
    targets = same / same.sum(dim=1, keepdim=True)
    return (functional.cross_entropy(logits, targets) + functional.cross_entropy(logits.T, targets)) / 2


def prototypes(
    support: torch.Tensor, support_labels: torch.Tensor, queries: torch.Tensor, query_labels: torch.Tensor
) -> torch.Tensor:
    """Cross-entropy of queries over their squared distances to the mean vector of each class.

    Args:
        support: vectors that the means are of, shape (samples, outputs), of any modality.
        support_labels: their classes.
        queries: vectors to classify; those of classes without support are left out.
        query_labels: their classes.
    """
    classes, index = support_labels.unique(return_inverse=True)
    member = functional.one_hot(index, len(classes)).to(support.dtype)
    means = member.T @ support / member.sum(dim=0)[:, None]
    known = torch.isin(query_labels, classes)
    if not known.any():
        return 0 * queries.sum()
    scores = -(queries[known][:, None] - means).square().sum(dim=2)
    return functional.cross_entropy(scores, torch.searchsorted(classes, query_labels[known]))
