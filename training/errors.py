"""What the job tells its user when it can't go on."""


class TrainingError(Exception):
    """The job can't go on; the message is one line that names what, where and what to do."""
