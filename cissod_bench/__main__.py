"""`python -m cissod_bench`: the program, where its folder of scripts is not on the path."""

from cissod_bench.cli.main import main

if __name__ == "__main__":
    main()
