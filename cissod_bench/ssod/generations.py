"""Generations: equal parts of a run, between which a method updates its sampling from its pseudo labels."""


def generation_of(done: int, burn_in: int, iterations: int, generations: float) -> int:
    """Number of the generation that `done` iterations have led to, from 0.

    Args:
        done: completed iterations.
        burn_in: iterations without pseudo labels at the start; they count as generation 0, whose length starts after
            them.
        iterations: length of the run.
        generations: number of generations; a fraction makes the last one shorter.
    """
    return int(max(0, done - burn_in) * generations // max(1, iterations - burn_in))


def is_boundary(done: int, burn_in: int, iterations: int, generations: float) -> bool:
    """Whether a generation begins after `done` iterations; none begins at the end of the run."""
    number = generation_of(done, burn_in, iterations, generations)
    return done < iterations and number > generation_of(done - 1, burn_in, iterations, generations)


def boundaries_after(done: int, burn_in: int, iterations: int, generations: float) -> int:
    """Number of boundaries after the first `done` iterations."""
    last = iterations - 1
    now, at_last = (generation_of(each, burn_in, iterations, generations) for each in (done, last))
    return max(0, min(at_last - now, last - max(done, burn_in)))  # several generations may begin together
