"""The errors that are meant for the user: what was expected, what came, what to do."""


class Seq2attnError(ValueError):
    """Base of every error that a user can mend; the command line prints it without a traceback."""
