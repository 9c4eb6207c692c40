"""Programs to read and run: what using Carousel looks like."""
