"""``python -m cyclewise``: the command line."""

from cyclewise.cli import main

if __name__ == "__main__":
    main()
