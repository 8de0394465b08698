"""Settings of the zero-shot baselines: one table for each pair of modalities and model."""

from __future__ import annotations

from typing import Any, Literal

from hil.config import Settings, setting

#: Models whose encoders are trained, without any array; "lsm-proto" has its table here, too.
MODELS = ("srnn-clip", "srnn-proto")

_ATV = "paper, audio to vision"
_BTV = "paper, brain to vision"


def _outputs(value: int, source: str) -> Any:
    return setting(value, "outputs of each projection", source=source, ge=2)


def _rate(value: float, source: str) -> Any:
    return setting(value, "Adam step", source=source, gt=0)


def _batch(value: int, source: str) -> Any:
    return setting(value, "pairs per step", source=source, ge=4)


def _epochs(value: int, source: str) -> Any:
    return setting(value, "passes over the pairs", source=source, ge=1)


def _per_query(value: int, source: str) -> Any:
    return setting(value, "gallery samples that each query sample is paired with", source=source, ge=1)


def _temperature(value: float, source: str) -> Any:
    text = "cosines are divided by it; of the loss 'labels' where the learned scale starts"
    return setting(value, text, source=source, gt=0)


def _length(value: float, source: str) -> Any:
    text = "length that vectors are given in the loss 'soft'; retrieval is by cosine"
    return setting(value, text, source=source, gt=0)


def _gate(value: float, classes: str, source: str) -> Any:
    return setting(value, f"paper protocol: least test accuracy of {classes} classes", source=source, ge=0, le=1)


def _published(value: float, source: str) -> Any:
    text = "published accuracy of unseen classes, beside which ours is put"
    return setting(value, text, source=source, ge=0, le=1)


class TrainedEncoder(Settings):
    """A trained spiking encoder of one modality."""

    decay: float = setting(0.9, "membrane left after one step", source=_ATV, ge=0, le=1)
    v_threshold: float = setting(5.0, "threshold, in units of the weights", source=_ATV, gt=0)
    lens: float = setting(
        2.5, "half width of the surrogate gradient, in units of the weights", source="ours: half the threshold", gt=0
    )
    const: float = setting(0.5, "standard deviation of the weights before training", source=_ATV, gt=0)


class AtvClip(Settings):
    """Contrastive training of both encoders, audio to vision."""

    query: TrainedEncoder = TrainedEncoder(decay=0.97, v_threshold=5.3, lens=2.65)
    gallery: TrainedEncoder = TrainedEncoder()
    n_neurons: int = setting(200, "recurrent neurons of each encoder", source=_ATV, ge=1, le=4096)
    outputs: int = _outputs(64, _ATV)
    loss: Literal["soft", "labels"] = setting("soft", "as projection.loss", source=_ATV)
    temperature: float = _temperature(1.0, _ATV)
    length: float = _length(4.0, "ours, by validation: trained encoders collapse at length 1; paper: not published")
    learning_rate: float = _rate(1e-3, _ATV)
    batch: int = _batch(32, "ours, for speed; paper 8")
    epochs: int = _epochs(20, "ours, for time; paper 100")
    pairs_per_query: int = _per_query(1, _ATV)
    gate_seen: float = _gate(0.65, "seen", _ATV)
    gate_unseen: float = _gate(0.70, "unseen", _ATV)
    published_unseen: float = _published(0.74, _ATV)


class AtvSrnnProto(Settings):
    """Prototypical network with both encoders trained, audio to vision."""

    query: TrainedEncoder = TrainedEncoder(decay=0.97, v_threshold=5.3, lens=2.65, const=0.9)
    gallery: TrainedEncoder = TrainedEncoder(const=0.35)
    n_neurons: int = setting(200, "recurrent neurons of each encoder", source=_ATV, ge=1, le=4096)
    outputs: int = _outputs(64, _ATV)
    learning_rate: float = _rate(1e-3, _ATV)
    batch: int = _batch(256, "ours; paper 1568, all pairs")
    epochs: int = _epochs(20, "ours, for time; paper 100")
    pairs_per_query: int = _per_query(1, _ATV)
    gate_seen: float = _gate(0.5, "seen", _ATV)
    gate_unseen: float = _gate(0.5, "unseen", _ATV)
    published_unseen: float = _published(0.8214, _ATV)


class AtvLsmProto(Settings):
    """Prototypical network on spike counts of the random network, audio to vision."""

    outputs: int = _outputs(64, _ATV)
    learning_rate: float = _rate(1e-3, _ATV)
    batch: int = _batch(1568, _ATV)
    epochs: int = _epochs(100, _ATV)
    pairs_per_query: int = _per_query(1, _ATV)
    gate_seen: float = _gate(0.5, "seen", _ATV)
    gate_unseen: float = _gate(0.5, "unseen", _ATV)
    published_unseen: float = _published(0.8169, _ATV)


class AtvBaselines(Settings):
    """Baselines of audio to vision."""

    srnn_clip: AtvClip = AtvClip()
    srnn_proto: AtvSrnnProto = AtvSrnnProto()
    lsm_proto: AtvLsmProto = AtvLsmProto()


class BtvEncoder(TrainedEncoder):
    """A trained spiking encoder of brain activity or of letters."""

    decay: float = setting(0.95, "membrane left after one step", source=_BTV, ge=0, le=1)
    v_threshold: float = setting(
        5.0, "threshold, in units of the weights", source="ours: a step is then small beside it; paper 0.1", gt=0
    )
    const: float = setting(
        0.45,
        "standard deviation of the weights before training",
        source="ours: the threshold over it is that of audio to vision, by the root of the neurons; paper 10 and 0.01",
        gt=0,
    )


class BtvClip(Settings):
    """Contrastive training of both encoders, brain to vision."""

    query: BtvEncoder = BtvEncoder()
    gallery: BtvEncoder = BtvEncoder()
    n_neurons: int = setting(
        256, "recurrent neurons of each encoder", source="ours, for speed; paper 2048", ge=1, le=4096
    )
    outputs: int = _outputs(64, "ours, for speed; paper 256")
    loss: Literal["soft", "labels"] = setting("labels", "as projection.loss", source=_BTV)
    temperature: float = _temperature(0.5, "ours; paper 0.01")
    length: float = _length(4.0, "ours; not of the loss 'labels'")
    learning_rate: float = _rate(1e-3, _BTV)
    batch: int = _batch(64, "ours, for few pairs; paper 512")
    epochs: int = _epochs(20, "ours, for time; paper 100")
    pairs_per_query: int = _per_query(2, "ours, for speed; paper 10")
    gate_seen: float = _gate(0.5, "seen", _BTV)
    gate_unseen: float = _gate(0.7, "unseen", _BTV)
    published_unseen: float = _published(0.6167, _BTV)


class BtvSrnnProto(Settings):
    """Prototypical network with both encoders trained, brain to vision."""

    query: BtvEncoder = BtvEncoder()
    gallery: BtvEncoder = BtvEncoder()
    n_neurons: int = setting(
        256, "recurrent neurons of each encoder", source="ours, for speed; paper 2048", ge=1, le=4096
    )
    outputs: int = _outputs(64, "ours, for speed; paper 512")
    learning_rate: float = _rate(1e-3, _BTV)
    batch: int = _batch(256, "ours, for few pairs; paper 1100")
    epochs: int = _epochs(20, "ours, for time; paper 100")
    pairs_per_query: int = _per_query(2, "ours, for speed; paper 10")
    gate_seen: float = _gate(0.5, "seen", _ATV)
    gate_unseen: float = _gate(0.5, "unseen", _ATV)
    published_unseen: float = _published(0.7083, f"{_BTV}, of the LSM: none of this model")


class BtvLsmProto(Settings):
    """Prototypical network on spike counts of the random network, brain to vision."""

    outputs: int = _outputs(256, _BTV)
    learning_rate: float = _rate(1e-3, _BTV)
    batch: int = _batch(1024, "ours; the paper has no such run")
    epochs: int = _epochs(100, _BTV)
    pairs_per_query: int = _per_query(10, _BTV)
    gate_seen: float = _gate(0.5, "seen", _ATV)
    gate_unseen: float = _gate(0.5, "unseen", _ATV)
    published_unseen: float = _published(0.7083, f"{_BTV}, of the LSM: none of this model")


class BtvBaselines(Settings):
    """Baselines of brain to vision."""

    srnn_clip: BtvClip = BtvClip()
    srnn_proto: BtvSrnnProto = BtvSrnnProto()
    lsm_proto: BtvLsmProto = BtvLsmProto()
