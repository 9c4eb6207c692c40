"""The root of every error that a person can mend."""


class CarouselError(Exception):
    """A mistake outside our code. Its message is one line: what was expected and what came."""
