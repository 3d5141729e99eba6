"""The REST microservice: a chest CT slice in, the probability of COVID-19 out. It imports nothing of `training`."""

from typing import Final

__version__ = "1.0.0"
"""Version of package, OpenAPI document and V2 server. The model has its own, on its card."""

DISCLAIMER: Final = "Research software, not a medical device: not for diagnosis or any decision about a patient."
"""Part of every answer."""
