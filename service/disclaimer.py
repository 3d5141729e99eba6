"""What everyone who meets the service must read."""

from typing import Final

DISCLAIMER: Final = "Research software, not a medical device: not for diagnosis or any decision about a patient."
