"""Draw the README's picture: `make docs`."""

from pathlib import Path

from cyclewise.experiments import digits_learner

if __name__ == "__main__":
    figure = digits_learner(0).lr_find().plot()
    figure.savefig(Path(__file__).with_name("range_test.png"), dpi=110)
