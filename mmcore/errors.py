"""The one error that users see: a single line of what is wrong, where, and what to do."""


class MMCoreError(ValueError):
    """Bad input from outside: a file, an option, a recipe, a weights folder.

    The command line prints its message as one line and exits with code 2.
    Broken invariants of our own are `assert`s, never this.
    """
