"""Training: the data, the one loop, checkpoints, fine-tuning, ensembles, and the record of what happened."""

from cyclewise.training.averaging import WeightAverage
from cyclewise.training.calibration import calibration_error
from cyclewise.training.callbacks import Callback
from cyclewise.training.checkpoint import Checkpoint
from cyclewise.training.data import Data
from cyclewise.training.early_stopping import EarlyStopping
from cyclewise.training.ensemble import Ensemble
from cyclewise.training.history import Epoch, History
from cyclewise.training.learner import ConvLearner, Learner
from cyclewise.training.metrics import accuracy
from cyclewise.training.snapshots import Snapshots
from cyclewise.training.tracking import Track
from cyclewise.training.watch import Watch

__all__ = [
    "Callback",
    "Checkpoint",
    "ConvLearner",
    "Data",
    "EarlyStopping",
    "Ensemble",
    "Epoch",
    "History",
    "Learner",
    "Snapshots",
    "Track",
    "Watch",
    "WeightAverage",
    "accuracy",
    "calibration_error",
]
