"""What can go wrong on the way to a model file."""

from carousel.errors import CarouselError


class ExportError(CarouselError):
    """A checkpoint cannot become a model, or a file is not one. One line: what was expected and what came."""
