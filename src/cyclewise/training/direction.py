"""Whether a score is to fall or to rise, by its name: what is known under a name everywhere, and nothing else."""

import re

_LOWER = frozenset({
    "bits", "bpb", "bpc", "brier", "cer", "cost", "crps", "deviance", "divergence", "ece", "eer", "err", "error",
    "errors", "fid", "kl", "mae", "mape", "mse", "msle", "nll", "perplexity", "ppl", "regret", "rmse", "rmsle", "smape",
    "wer",
})  # fmt: skip
_LOWER_ANYWHERE = ("loss", "crossentropy")
_HIGHER = frozenset({
    "acc", "accuracy", "ap", "auc", "auprc", "auroc", "bleu", "correct", "correlation", "dice", "f1", "fbeta", "hits",
    "iou", "jaccard", "kappa", "likelihood", "map", "mcc", "miou", "mrr", "ndcg", "pearson", "precision", "psnr", "r2",
    "recall", "reward", "rouge", "score", "sensitivity", "spearman", "specificity", "ssim", "top", "top1", "top5",
})  # fmt: skip
# A log-likelihood rises, and a negative one falls; scikit-learn's neg_mean_squared_error rises.
_TURNED = frozenset({"neg", "negative"})


def lower_is_better(name: str) -> bool | None:
    """Return the direction that a score's name tells; None where it tells none.

    >>> [lower_is_better(name) for name in ("valid_loss", "RMSE", "top1_accuracy", "negative log likelihood", "gap")]
    [True, True, False, True, None]
    """
    parts = re.findall(r"[A-Za-z0-9]+", name)
    humps = [hump for part in parts for hump in re.findall(r"[A-Z]?[a-z0-9]+|[A-Z0-9]+", part)]
    words = {word.lower() for word in (*parts, *humps)}
    # What is lost counts first: a Brier score falls, and so does an accuracy's error.
    if words & _LOWER or any(word in "".join(parts).lower() for word in _LOWER_ANYWHERE):
        falls = True
    elif words & _HIGHER:
        falls = False
    else:
        return None
    return falls != bool(words & _TURNED)
