"""`python -m demokit`, the same as `demokit`: what `torchrun -m demokit` starts."""

from demokit.cli import main

if __name__ == "__main__":
    main(prog_name="demokit")
