"""Training: the data, the one loop, and the record of what happened."""

from cyclewise.training.callbacks import Callback
from cyclewise.training.data import Data
from cyclewise.training.history import Epoch, History
from cyclewise.training.learner import ConvLearner, Learner
from cyclewise.training.metrics import accuracy

__all__ = ["Callback", "ConvLearner", "Data", "Epoch", "History", "Learner", "accuracy"]
