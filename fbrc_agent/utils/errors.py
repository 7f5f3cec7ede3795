"""The exceptions that the command line turns into a sentence and an exit code."""


class InputError(ValueError):
    """A file, flag, argument or tensor that the user gave is not usable.

    The message is one sentence that names the thing, its value and what would be right; the command
    line prints it and exits with code 2.
    """


class NotFiniteError(ArithmeticError):
    """Training gave NaN or infinity; the command line exits with code 3.

    Attributes:
      tensor: Name of the loss, diagnostic or variable.
      value: NaN or infinity.
      step: The training step.
      stage: The stage.
    """

    def __init__(self, tensor: str, value: float, step: int, stage: str, explanation: str):
        super().__init__(f"{tensor} is {value} at step {step} of the {stage} stage; {explanation}")
        self.tensor, self.value, self.step, self.stage = tensor, value, step, stage
