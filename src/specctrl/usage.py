"""What is wrong with a command line beyond what its parser can see."""


class UserError(Exception):
    """The command cannot be carried out as given; the message says why."""
