"""Generations: equal parts of a run; between two of them a method changes its sampling by its pseudo labels."""


def generation_of(done: int, burn_in: int, iterations: int, generations: float) -> int:
    """Number of the generation that `done` iterations have led to, from 0.

    Args:
        done: iterations that are over.
        burn_in: first iterations, without pseudo labels; they belong to generation 0, which begins after them.
        iterations: length of the run.
        generations: number of generations; where it is not whole, the last is a part of one.
    """
    return int(max(0, done - burn_in) * generations // max(1, iterations - burn_in))


def is_boundary(done: int, burn_in: int, iterations: int, generations: float) -> bool:
    """Whether a generation begins when `done` iterations are over; the end of the run begins none."""
    number = generation_of(done, burn_in, iterations, generations)
    return done < iterations and number > generation_of(done - 1, burn_in, iterations, generations)


def boundaries_after(done: int, burn_in: int, iterations: int, generations: float) -> int:
    """How many iterations after the first `done` ones `is_boundary` holds for."""
    last = iterations - 1
    now, at_last = (generation_of(each, burn_in, iterations, generations) for each in (done, last))
    return max(0, min(at_last - now, last - max(done, burn_in)))  # several generations may begin at once
