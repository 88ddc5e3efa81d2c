"""Class agreement: does a classifier see the class that was asked for?"""

from __future__ import annotations

from dataclasses import dataclass

from trilemma.interfaces.metric import Metric, Observation


class AgreementCount:
    """A count of the labelled images whose label the classifier agrees on."""

    def __init__(self) -> None:
        self.right = 0
        self.labelled = 0

    def update(self, batch: Observation) -> None:
        """Takes in logits [B, classes] and labels [B]; a batch without either counts for nothing."""
        if batch.logits is None or batch.labels is None:
            return
        self.right += int((batch.logits.argmax(1) == batch.labels.to(batch.logits.device)).sum())
        self.labelled += len(batch.labels)


@dataclass(frozen=True)
class ClassAgreement(Metric[AgreementCount]):
    """The fraction of the samples that the feature network's classifier gives the class asked for."""

    # It looks at the samples only.
    reference_images = 0

    def accumulator(self) -> AgreementCount:
        return AgreementCount()

    def value(self, reference: AgreementCount, samples: AgreementCount) -> float | None:
        return samples.right / samples.labelled if samples.labelled else None
