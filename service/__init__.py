"""The REST microservice: a chest CT slice in, the probability of COVID-19 out. It imports nothing of `training`."""

from typing import Final

DISCLAIMER: Final = "Research software, not a medical device: not for diagnosis or any decision about a patient."
"""Part of every answer."""
