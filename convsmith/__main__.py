"""`python -m convsmith`, which torchrun needs, is the command `convsmith`."""

from convsmith.cli import main

if __name__ == "__main__":
    main()
