"""The errors that a user can act on."""


class UserError(Exception):
    """What the user can correct: one line that says what is wrong, where, and what to do."""


class TransientError(UserError):
    """One that may be gone at the next attempt without anybody's doing: a server that does not answer, say."""
