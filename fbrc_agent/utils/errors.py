"""The one exception a user's input can raise."""


class InputError(ValueError):
    """A file, flag, argument or tensor that the user gave is not usable.

    The message is one sentence that names the thing, its value and what would be right; the command
    line prints it and exits with code 2.
    """


class BadNumbersError(ArithmeticError):
    """Training gave NaN or infinity; the newest checkpoint is from before."""
