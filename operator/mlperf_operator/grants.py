"""What the administrator grants a namespace whose runs may have the node's privileges."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import Field, StringConstraints, field_validator

from mlperf_operator.api.v1alpha1 import LabelKey, LabelValue, MLPerfRun, SecurityProfile
from mlperf_operator.models import Strict

_CLAIM = r"[a-z0-9]([-a-z0-9.]*[a-z0-9])?"


def has_parity(run: MLPerfRun) -> bool:
    """Say whether the run's containers get what NVIDIA's own launcher gives."""
    return run.spec.security_profile is SecurityProfile.HARNESS_PARITY


class ParityGrant(Strict):
    """What runs with securityProfile HarnessParity may have in one namespace: nothing else is theirs to choose."""

    volumes: tuple[str, ...] = Field(
        default=(),
        description="Claims and host paths that may be such a run's scratch, results or code.claimName. Nobody but the "
        "administrator and runs of the namespace may write to them.",
    )
    images: tuple[Annotated[str, StringConstraints(min_length=1)], ...] = Field(
        default=(),
        description="Prefixes that image and code.image of such a run may start with, instead of allowedImages. Empty: "
        "the suite's own image alone.",
    )
    node_selector: dict[LabelKey, LabelValue] = Field(
        default_factory=dict, description="Labels that the node of such a run must have, whatever the run says."
    )

    @field_validator("volumes")
    @classmethod
    def _claims_and_paths(cls, volumes: tuple[str, ...]) -> tuple[str, ...]:
        for volume in volumes:
            if not re.fullmatch(_CLAIM, volume) and (volume[:1] != "/" or ".." in volume.split("/")):
                msg = f"{volume} is no name of a claim and no absolute path"
                raise ValueError(msg)
        return volumes

    @property
    def host_paths(self) -> tuple[str, ...]:
        """The host paths among the volumes."""
        return tuple(volume for volume in self.volumes if volume.startswith("/"))
