"""The error that a user can act on."""


class UserError(Exception):
    """What the user can correct: one line that says what is wrong, where, and what to do."""
