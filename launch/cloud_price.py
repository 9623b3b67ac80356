"""What a rented host costs."""

from __future__ import annotations

from kit.errors import UserError
from kit.target import AwsSettings, Target
from launch.planner.prices import price_called

# AWS's machines in the table of prices: which row prices one accelerator, and how many a machine has.
MACHINES = {"p5.48xlarge": ("h100-aws", 8), "p4de.24xlarge": ("a100-80g-aws", 8)}


def usd_per_host_hour(target: Target) -> tuple[float, str]:
    """Price of one instance and hour, and where it comes from.

    Raises:
        UserError: Nobody knows it, so no limit of cost could be kept.
    """
    settings = target.aws or AwsSettings()
    given = settings.usd_per_hour or target.usd_per_hour
    if given:
        return given, "the target file"
    if settings.instance_type not in MACHINES:
        raise UserError(
            f"no price is known for {settings.instance_type}",
            expected=f"aws.usd_per_hour, or one of: {', '.join(MACHINES)}",
            action=f"write its price in {settings.region} as usd_per_hour under aws",
        )
    name, count = MACHINES[settings.instance_type]
    price = price_called(name)
    # The table has the rounded price of one accelerator.
    return round(price.usd_per_hour * count, 2), f"launch/planner/prices.yaml, read {price.date}: {price.offer}"
